"""A run as a whole: starting it, inspecting it, comparing and exporting its results."""
