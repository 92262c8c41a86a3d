"""People of a photo: found, restored for themselves, compared with before, put back."""
