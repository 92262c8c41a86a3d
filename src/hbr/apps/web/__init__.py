"""The web pages: words and wiring. Each is made by a function that takes what it shows."""
