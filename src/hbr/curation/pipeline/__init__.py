"""One photo to its rows and crops, then the passes over the whole set."""
