"""A model over a photo: tiles, memory, what guides it, and what comes of it."""
