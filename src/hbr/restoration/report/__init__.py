"""A batch of restored photos as one HTML page that works offline."""
