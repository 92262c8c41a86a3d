"""Naming what lies in place of weights: a pointer of Git LFS, a web page, another text."""

from __future__ import annotations

import pickletools
from pathlib import Path

_HEAD = 1024
# a pickle of protocol 0 is text; longer ones are not looked at as a whole
_LONGEST_TEXT = 1 << 20


def instead_of_weights(path: str | Path) -> str | None:
    """What a file without binary data is, and what to do: "is an HTML page, not weights; …".

    To be called where reading failed, as the reason of the error.

    Returns:
        None for binary files, for pickles, and for files that cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST_TEXT)
    except OSError:
        return None
    head = data[:_HEAD].removeprefix(b"\xef\xbb\xbf").strip()
    start = head.lower()
    if not data.strip(b"\0 \t\r\n"):
        return "is empty or all zeros, an unfinished download; download it again"
    if start.startswith(b"version https://git-lfs.github.com/"):
        return "is a Git LFS pointer, not the weights; `git lfs pull` gets them"
    if start.startswith((b"/annex/objects/", b".git/annex/objects/")):
        return "is a git-annex pointer, not the weights; `git annex get` gets them"
    if start.startswith((b"<!doctype html", b"<html", b"<head")) or (
        start.startswith((b"<?xml", b"<!--")) and b"<html" in start
    ):
        return "is an HTML page, not weights; a login or an error page was saved, download it again"
    if start.startswith(b"<?xml"):
        return "is an XML document, not weights; a server's error was saved, download it again"
    if not _is_text(data[:_HEAD]) or _is_pickle(data):
        return None
    what = "JSON" if start[:1] in (b"{", b"[") else "a text file"
    return f"is {what}, not weights; it begins {_shown(head)}"


def _is_text(data: bytes) -> bool:
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in data):
        return False
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return len(data) == _HEAD and error.start > _HEAD - 4  # a character that is cut
    return True


def _is_pickle(data: bytes) -> bool:
    try:
        for _ in pickletools.genops(data):
            pass
    except Exception:  # it raises anything on other files
        return False
    return True


def _shown(head: bytes) -> str:
    line = head.decode("utf-8", "replace").splitlines()[0]
    return repr(line[:40])
