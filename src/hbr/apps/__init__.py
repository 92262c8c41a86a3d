"""The rooms' front doors: words and wiring, no logic."""
