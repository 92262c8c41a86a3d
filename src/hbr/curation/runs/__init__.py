"""A run as a whole: starting it, looking at it, comparing and exporting what it left."""
