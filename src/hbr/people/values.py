"""Values as annotation files write them: the one parser of numbers, flags, ids, names and text.

What cannot be used becomes NaN or None, never an error.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import IO

_YES = frozenset(["1", "true", "t", "yes", "y", "on"])
_NO = frozenset(["0", "false", "f", "no", "n", "off"])
# as pandas, Open Images (-1) and LabelImg leave a flag open
_NOT_STATED = frozenset(
    ["", "-1", "nan", "none", "null", "na", "n/a", "<na>", "unspecified", "unknown"]
)


def clean(words: str) -> str:
    """Text that can be written as UTF-8; other code points are escaped."""
    return words.encode("utf-8", "backslashreplace").decode()


def text(value: object) -> str | None:
    """Text without surrounding blanks; None if it is empty or not text."""
    return clean(value).strip() or None if isinstance(value, str) else None


def identifier(value: object) -> str | None:
    """An id as text, whether it is written as text or as a whole number: 1, 1.0, "1", "1.0".

    Returns:
        None for what names nothing: no text and no whole number, NaN, True.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return str(value)
    words = text(value)
    # an id that went through a column of floats
    return words if words is None else re.sub(r"\A([+-]?[0-9]+)\.0*\Z", r"\1", words)


def flag(value: object) -> bool | None:
    """Whether a flag is set: 1, 1.0, "1", "true", "yes"; what is not stated is not set.

    Returns:
        None for what is neither, such as 2 or "maybe".
    """
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, (int, float)):
        words = "nan" if isinstance(value, float) and math.isnan(value) else f"{value:g}"
    elif isinstance(value, str):
        words = re.sub(r"\A([+-]?[0-9]+)\.0*\Z", r"\1", value.strip().casefold())
    else:
        return None
    if words in _YES:
        return True
    return False if words in _NO or words in _NOT_STATED else None


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


def name_parts(name: str) -> tuple[str, ...]:
    r"""The folders and the file of a name, without drive or root: `C:\a\b.jpg` is a, b.jpg."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if len(parts) > 1 and re.fullmatch(r"[A-Za-z]:", parts[0]):
        del parts[0]
    return tuple(parts)


def encoding_of(head: bytes) -> str:
    """The encoding of a text file by the byte order mark in its first four bytes, or UTF-8."""
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    return "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def open_text(path: str | Path, newline: str | None = None) -> IO[str]:
    """Open a text file in the encoding of its byte order mark, or UTF-8; other bytes are escaped.

    Raises:
        OSError: it cannot be read.
    """
    with Path(path).open("rb") as file:
        encoding = encoding_of(file.read(4))
    return Path(path).open(encoding=encoding, errors="backslashreplace", newline=newline)
