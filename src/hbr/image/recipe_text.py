"""The recipe of a restored photo, as a text in the metadata of its file.

A PNG holds it as a text of the keyword `hbr`, the other formats in the UserComment of EXIF. A
UserComment that somebody wrote is kept; the recipe then goes into XMP, as the property
`hbr:recipe`. BMP holds none.

EXIF is not written anew: a directory that gets an entry is copied to the end, so that maker notes
and unknown tags keep their offsets.

Sources: Exif 2.32, 4.6.5 (UserComment); Adobe XMP part 1, 7.4 (rdf:about).
"""

from __future__ import annotations

import dataclasses
import re
import struct
from xml.sax.saxutils import escape, unescape

from hbr.image.metadata import EXIF_IFD, LONG, byte_order, entries
from hbr.image.photo import Photo

BEGINNING = '{"hbr_recipe":'
"""What every recipe begins with."""

_KEYWORD = "hbr"
_USER_COMMENT, _UNDEFINED = 0x9286, 7
_BYTES = (1, 2, _UNDEFINED)  # types of values of one byte each
_ASCII = b"ASCII\0\0\0"
_CODES = (_ASCII, b"JIS\0\0\0\0\0", b"UNICODE\0", b"\0" * 8)
_SPACE = "urn:hbr:recipe#"
_LARGEST_EXIF, _LARGEST_XMP = 65527, 65504  # of a segment of a JPEG, without their names
_BLOCK = re.compile(
    rb"<([\w.-]+):Description\b[^>]*>\s*<hbr:recipe\b[^>]*>([^<]*)</hbr:recipe>\s*</\1:Description>"
)
_ELEMENT = re.compile(rb"<hbr:recipe\b[^>]*>([^<]*)</hbr:recipe>\s*")
_END = re.compile(rb"</[\w.-]+:RDF\s*>")
_ABOUT = re.compile(rb"[\w.-]+:about\s*=\s*(\"[^\"<]*\"|'[^'<]*')")


def recipe_text(photo: Photo) -> str | None:
    """The recipe that a photo carries; None if it carries none."""
    texts = [text for keyword, text in photo.texts if keyword == _KEYWORD]
    if photo.exif:
        texts.append(_user_comment(photo.exif))
    if photo.xmp and (found := _ELEMENT.search(photo.xmp)):
        texts.append(unescape(found[1].decode("utf-8", "replace"), {"&quot;": '"'}))
    return next((text for text in texts if text.startswith(BEGINNING)), None)


def with_recipe(photo: Photo, text: str | None, kind: str) -> tuple[Photo, bool]:
    """The photo with this recipe in place of any that it carries, and whether it has it now.

    `text` is ASCII; None only removes a recipe. `kind` is the format to be written, as
    `Photo.format`.
    """
    photo = _without_recipe(photo)
    if text is None or kind == "bmp":
        return photo, False
    if kind == "png":
        return dataclasses.replace(photo, texts=(*photo.texts, (_KEYWORD, text))), True
    exif = _with_user_comment(photo.exif, text)
    if exif is not None and (kind != "jpeg" or len(exif) <= _LARGEST_EXIF):
        return dataclasses.replace(photo, exif=exif), True
    xmp = _xmp_with(photo.xmp, text)
    if xmp is not None and (kind != "jpeg" or len(xmp) <= _LARGEST_XMP):
        return dataclasses.replace(photo, xmp=xmp), True
    return photo, False


def _without_recipe(photo: Photo) -> Photo:
    """The same photo, also the same object, if it carries none."""
    if recipe_text(photo) is None:
        return photo
    texts = tuple(
        (keyword, text)
        for keyword, text in photo.texts
        if not (keyword == _KEYWORD and text.startswith(BEGINNING))
    )
    exif, xmp = photo.exif, photo.xmp
    if exif and (comment := _user_comment(exif)).startswith(BEGINNING):
        exif = None if exif == _with_user_comment(None, comment) else _without_comment(exif)
    if xmp and _ELEMENT.search(xmp):
        only = recipe_text(dataclasses.replace(photo, texts=(), exif=None))
        alone = only is not None and xmp == _xmp_with(None, only)
        xmp = None if alone else _ELEMENT.sub(b"", _BLOCK.sub(b"", xmp))
    return dataclasses.replace(photo, texts=texts, exif=exif, xmp=xmp)


def _directories(exif: bytes) -> tuple[str, int, int | None]:
    """Byte order, place of the first directory, and of that of EXIF, if there is one."""
    order = byte_order(exif) or "<"
    (first,) = struct.unpack_from(order + "I", exif, 4)
    for tag, kind, _, at in entries(exif, order, first):
        if tag == EXIF_IFD and kind in (LONG, 13):
            return order, first, struct.unpack_from(order + "I", exif, at)[0]
    return order, first, None


def _user_comment(exif: bytes) -> str:
    """The UserComment; empty if there is none, or only blanks."""
    order, _, inner = _directories(exif)
    for tag, kind, count, at in entries(exif, order, inner or 0):
        if tag != _USER_COMMENT:
            continue
        if kind not in _BYTES:
            return "?"
        start = struct.unpack_from(order + "I", exif, at)[0] if count > 4 else at
        data = exif[start : start + count]
        code, rest = data[: len(_ASCII)], data[len(_ASCII) :]
        return (rest if code in _CODES else data).decode("latin-1").strip("\0 ")
    return ""


def _without_comment(exif: bytes) -> bytes:
    """The same EXIF without its UserComment, whose text is blanked."""
    order, _, inner = _directories(exif)
    if inner is None:
        return exif
    found = list(entries(exif, order, inner))
    data = bytearray(exif)
    for place, (tag, kind, count, at) in enumerate(found):
        if tag != _USER_COMMENT:
            continue
        if kind in _BYTES and count > 4:
            (start,) = struct.unpack_from(order + "I", exif, at)
            end = min(start + count, len(data))
            data[start:end] = b"\0" * max(0, end - start)
        begin, end = inner + 2 + 12 * place, inner + 2 + 12 * len(found)
        rest = exif[begin + 12 : end + 4].ljust(end + 4 - begin - 12, b"\0")
        data[begin : begin + len(rest)] = rest
        struct.pack_into(order + "H", data, inner, len(found) - 1)
        break
    return bytes(data)


def _with_user_comment(exif: bytes | None, text: str) -> bytes | None:
    """EXIF with this UserComment; None if it has one already."""
    exif = exif or b"II*\0" + struct.pack("<IHI", 8, 0, 0)
    if _user_comment(exif):
        return None
    order, first, inner = _directories(exif := _without_comment(exif))
    data = bytearray(exif + b"\0" * (len(exif) % 2))
    value = _ASCII + text.encode("ascii")
    comment = _entry(order, _USER_COMMENT, _UNDEFINED, len(value), len(data))
    data += value + b"\0" * (len(value) % 2)
    place = len(data)
    data += _directory(exif, order, inner, comment)
    if inner is not None:
        (pointer,) = (at for tag, _, _, at in entries(exif, order, first) if tag == EXIF_IFD)
        struct.pack_into(order + "I", data, pointer, place)
        return bytes(data)
    data += b"\0" * (len(data) % 2)
    struct.pack_into(order + "I", data, 4, len(data))
    data += _directory(exif, order, first, _entry(order, EXIF_IFD, LONG, 1, place))
    return bytes(data)


def _entry(order: str, tag: int, kind: int, count: int, value: int) -> bytes:
    return struct.pack(order + "HHII", tag, kind, count, value)


def _directory(exif: bytes, order: str, place: int | None, added: bytes) -> bytes:
    """The directory at `place`, or an empty one, with one more entry."""
    found = [] if place is None else list(entries(exif, order, place))
    whole = [exif[at - 8 : at + 4] for _, _, _, at in found]
    whole = sorted([*whole, added], key=lambda entry: struct.unpack_from(order + "H", entry))
    return struct.pack(order + "H", len(whole)) + b"".join(whole) + b"\0" * 4


def _xmp_with(xmp: bytes | None, text: str) -> bytes | None:
    """XMP with this recipe; None if the existing XMP has no place for it."""
    if xmp is None:
        xmp = (
            b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
            b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
            b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"></rdf:RDF></x:xmpmeta>\n'
            b'<?xpacket end="w"?>'
        )
    end = _END.search(xmp)
    if end is None:
        return None
    prefix = end[0][2:-1].rstrip().removesuffix(b":RDF")
    about = found[1] if (found := _ABOUT.search(xmp)) else b'""'
    block = b'<%b:Description %b:about=%b xmlns:hbr="%b"><hbr:recipe>%b</hbr:recipe>' % (
        *(prefix, prefix, about, _SPACE.encode()),
        escape(text).encode("ascii"),
    )
    return xmp[: end.start()] + block + b"</%b:Description>" % prefix + xmp[end.start() :]
