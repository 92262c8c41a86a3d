"""Streaming of large JSON files, one element at a time, in a few megabytes of memory.

Annotation files need what ijson 3.6 (its backend yajl2_c) refuses: NaN and Infinity, integers over
64 bits, a byte order mark, and file names that are not UTF-8. It is not faster either: on an 80 MB
COCO file it takes as long for one of the arrays as this does for all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from hbr.errors import HbrError
from hbr.people.values import open_text

CHUNK = 1 << 20
# The annotation of a crowd may take 100 kB.
MAX_ELEMENT = 64 << 20
_BLANK = re.compile(r"[ \t\n\r]*")
_decoder = json.JSONDecoder()


class JsonCutError(HbrError, ValueError):
    """The file is cut or not JSON from here on; the elements before are complete."""

    http_status = 422


def top_level(path: str | Path) -> Iterator[tuple[str, Any]]:
    """Iterate over a JSON file that holds one object.

    Yields:
        (key, element) for each element of each array right below the object; (key, value) for
        each other value.

    Raises:
        JsonCutError: the file is cut or broken here; the message says where.
        OSError: the file cannot be read.
    """
    with open_text(path) as file:
        text = _Text(file)
        text.expect("{")
        if text.peek() == "}":
            return
        while True:
            key = text.value()
            if not isinstance(key, str):
                text.fail("a key was expected")
            text.expect(":")
            if text.peek() == "[":
                for element in _elements(text):
                    yield key, element
            else:
                yield key, text.value()
            if text.peek() == "}":
                return
            text.expect(",")


def _elements(text: _Text) -> Iterator[Any]:
    text.expect("[")
    if text.peek() == "]":
        text.expect("]")
        return
    while True:
        yield text.value()
        if text.peek() == "]":
            text.expect("]")
            return
        text.expect(",")


class _Text:
    """A window of the file: text that is read and not yet used."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._before = 0  # characters of the file before the window

    def _more(self, size: int = CHUNK) -> bool:
        new = self._file.read(size)
        self._before += self._at
        self._text = self._text[self._at :] + new
        self._at = 0
        return bool(new)

    def peek(self) -> str:
        """The next character that is not blank, without taking it."""
        while True:
            match = _BLANK.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                self.fail("the file ends in the middle")

    def expect(self, character: str) -> None:
        """Take this character, skipping blanks."""
        if (got := self.peek()) != character:
            self.fail(f"{character!r} was expected, {got!r} came")
        self._at += 1

    def value(self) -> Any:
        """Take one whole JSON value."""
        self.peek()
        while True:
            try:
                value, end = _decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError):
                value, end = None, -1
            # A number at the end of the window may continue beyond it.
            whole = end < len(self._text) or not isinstance(value, (int, float))
            if end >= 0 and whole:
                self._at = end
                return value
            left = len(self._text) - self._at
            if left > MAX_ELEMENT:
                self.fail("not JSON")
            if not self._more(max(CHUNK, left)):
                self.fail("the file ends in the middle, or is not JSON")

    def fail(self, what: str) -> Any:
        """Raise `JsonCutError` with the place."""
        raise JsonCutError(f"{what}, at character {self._before + self._at}")
