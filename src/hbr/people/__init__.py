"""A photo → the people in it: boxes, key points, masks."""
