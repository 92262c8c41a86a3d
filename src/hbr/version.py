"""The version of hbr."""

__version__ = "0.1.0"
