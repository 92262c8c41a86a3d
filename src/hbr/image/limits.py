"""Limits on what is read, without anything that decodes."""

DEFAULT_MAX_PIXELS = 200_000_000
"""A 100-megapixel photo passes, a file of 20000 x 20000 that wants gigabytes does not."""
