"""One-step models rewritten for inference: the same function, computed with less work."""
