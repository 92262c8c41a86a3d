"""The service behind `hbr serve` and `hbr ui`: a queue of photos, an HTTP API, and a page."""
