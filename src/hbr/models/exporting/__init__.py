"""Models of hbr in the formats that others read."""
