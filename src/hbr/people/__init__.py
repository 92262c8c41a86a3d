"""The people in a photo: boxes, key points, masks."""
