"""Values as annotation files write them; unusable ones become NaN or None, never an error."""

from __future__ import annotations


def clean(words: str) -> str:
    """Text that can be written as UTF-8; other code points are escaped."""
    return words.encode("utf-8", "backslashreplace").decode()


def text(value: object) -> str | None:
    """Text without surrounding blanks; None if it is empty or not text."""
    return clean(value).strip() or None if isinstance(value, str) else None


def identifier(value: object) -> str | None:
    """An id as text, whether it is written as text or as a whole number (1, 1.0); else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) else text(value)


def number(value: object) -> float:
    """A number, which may be written as text; else NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return float("nan")
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def pixels(value: object) -> int | None:
    """A width or height in pixels; None if it is not a positive number."""
    size = number(value)
    return int(size) if 0 < size < 1 << 31 else None
