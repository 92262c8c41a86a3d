"""Which metadata is carried from a file to the new one, and which cannot be.

EXIF, XMP, IPTC with Photoshop's other resources, comments of JPEG and texts of PNG are carried.
`Photo.lost` names what else a file held, for the warning when the photo is written.

Sources: Exif 2.32; Adobe Photoshop File Formats (image resources); IPTC-IIM 4.2; ImageMagick's raw
profiles in PNG texts, as exiftool reads them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from hbr.image.directories import LAYOUT
from hbr.image.metadata import EXIF_PREFIX, StoredMetadata

XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
IPTC = 0x0404
_LARGEST_TEXT = 16 << 20
_SIGNATURES = (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR")  # of Photoshop's resources
# Photoshop's resources that are thumbnails, or repeat what is stored elsewhere, or where guides and
# slices of the old picture are.
_RESOURCES_DROPPED = {0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424, 0x0408, 0x041A}
# What else the segments of a JPEG hold, by marker and beginning; None for what only says how the
# old file was made.
_SEGMENTS: tuple[tuple[int, bytes, str | None], ...] = (
    (0xE0, b"", None),
    (0xE1, b"Exif\0", None),
    (0xE1, XMP_PREFIX, None),
    (0xE1, b"http://ns.adobe.com/xmp/extension/\0", "extended XMP"),
    (0xE1, b"FLIR\0", "thermal data"),
    (0xE2, b"ICC_PROFILE\0", None),
    (0xE2, b"MPF\0", "further pictures"),
    (0xE2, b"urn:iso:std:iso:ts:21496", "a gain map"),
    (0xEB, b"JP", "content credentials"),
    (0xEC, b"Ducky", None),
    (0xED, PHOTOSHOP, None),
    (0xED, b"Adobe_CM", None),
    (0xEE, b"Adobe", None),
)
# Chunks of PNG that only say how the old file is to be decoded or shown.
_CHUNKS_UNNAMED = frozenset(
    b"IHDR PLTE IDAT IEND tRNS gAMA cHRM sRGB cICP iCCP sBIT bKGD hIST pHYs tIME eXIf tEXt zTXt "
    b"iTXt iDOT acTL fcTL fdAT mDCV cLLI mDCv cLLi vpAg".split()
)


def jpeg_metadata(segments: Iterable[tuple[int, bytes]], tail: bytes) -> dict[str, Any]:
    """What a JPEG holds besides EXIF, XMP and profile, as fields of `StoredMetadata`.

    `tail` is the file behind the end marker.
    """
    lost: set[str] = set()
    comments, resources = [], b""
    for marker, content in segments:
        if marker == 0xFE:
            comments.append(content)
        elif marker == 0xED and content.startswith(PHOTOSHOP):
            resources += content[len(PHOTOSHOP) :]
        elif 0xE0 <= marker <= 0xEF:
            known = [k for m, start, k in _SEGMENTS if m == marker and content.startswith(start)]
            kind = known[0] if known else f"a block of APP{marker - 0xE0}"
            lost.update({kind} if kind else ())
    if b"ftyp" in tail[:64] or b"ftypmp4" in tail or b"ftypisom" in tail:
        lost.add("a video")
    # An encoder's word on its own settings is not the new file's.
    kept = tuple(c for c in comments if c and not c.startswith(b"CREATOR: gd-jpeg"))
    return {
        "photoshop": kept_resources(resources),
        "comments": kept,
        "lost": tuple(sorted(lost)),
    }


def png_metadata(chunks: Iterable[tuple[bytes, bytes]]) -> StoredMetadata:
    """What the chunks of a PNG hold, texts in raw profiles too."""
    texts, lost = [], set()
    fields: dict[str, Any] = {}
    for kind, content in chunks:
        if kind == b"eXIf":
            fields.setdefault("exif", content)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            pair = _text(kind, content)
            if pair is None:
                lost.add("a broken text")
            else:
                texts.append(pair)
        elif kind == b"caBX":
            lost.add("content credentials")
        elif kind not in _CHUNKS_UNNAMED:
            lost.add(f"the chunk {kind.decode('latin-1')}")
    stored = metadata_of_texts(texts)
    return replace(stored, **fields, lost=(*stored.lost, *sorted(lost)))


def metadata_of_texts(texts: Iterable[tuple[str, str]]) -> StoredMetadata:
    """EXIF, XMP, IPTC and a profile in texts of PNG, and the other texts."""
    kept: list[tuple[str, str]] = []
    lost: list[str] = []
    found: dict[str, bytes] = {}
    for keyword, text in texts:
        if keyword == "XML:com.adobe.xmp":
            found.setdefault("xmp", text.encode("utf-8", "surrogatepass"))
        elif keyword.lower().startswith("raw profile type "):
            place = _profile_place(keyword[17:].lower(), data := _raw_profile(text))
            if place is None or data is None:
                lost.append(f"the profile {keyword[17:]}")
            else:
                found.setdefault(place, data.removeprefix(XMP_PREFIX))
        else:
            kept.append((keyword, text))
    resources = found.get("photoshop")
    if resources and not resources.startswith(b"8BIM"):
        resources = resource(IPTC, resources)
    return StoredMetadata(
        exif=found.get("exif"),
        xmp=found.get("xmp"),
        photoshop=kept_resources(resources or b""),
        texts=tuple(kept),
        icc=found.get("icc"),
        lost=tuple(lost),
    )


def _profile_place(name: str, data: bytes | None) -> str | None:
    if name == "app1" and data:
        return "xmp" if data.startswith(XMP_PREFIX) else "exif"
    places = {"exif": "exif", "xmp": "xmp", "iptc": "photoshop", "8bim": "photoshop"}
    return (places | {"icc": "icc", "icm": "icc"}).get(name)


def _raw_profile(text: str) -> bytes | None:
    """ImageMagick's encoding of bytes as text: a name, their number, and hexadecimal digits."""
    parts = text.split(maxsplit=2)
    try:
        data = bytes.fromhex(parts[2])
        return data[: int(parts[1])] or None
    except (IndexError, ValueError):
        return None


def _text(kind: bytes, content: bytes) -> tuple[str, str] | None:
    keyword, _, rest = content.partition(b"\0")
    try:
        if kind == b"tEXt":
            return keyword.decode("latin-1"), rest.decode("latin-1")
        if kind == b"zTXt":
            return keyword.decode("latin-1"), _unpacked(rest[1:]).decode("latin-1")
        packed = rest[:1] == b"\1"
        text = rest[2:].split(b"\0", 2)[2]
        return keyword.decode("latin-1"), (_unpacked(text) if packed else text).decode("utf-8")
    except (ValueError, IndexError, zlib.error):
        return None


def _unpacked(data: bytes) -> bytes:
    return zlib.decompressobj().decompress(data, _LARGEST_TEXT)


def pil_metadata(image: Any) -> StoredMetadata:
    """The metadata of a loaded PIL image.

    EXIF that was changed since the file was opened counts as it is now.
    """
    info: Mapping[Any, Any] = image.info
    texts = [(str(k), str(v)) for k, v in (getattr(image, "text", None) or {}).items()]
    stored = metadata_of_texts(texts)
    fields: dict[str, Any] = {"dpi": info.get("dpi"), "exif": _pil_exif(image) or stored.exif}
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or stored.xmp
    fields["xmp"] = xmp.encode() if isinstance(xmp, str) else xmp
    if segments := getattr(image, "applist", None):
        numbers = {"COM": 0xFE, **{f"APP{n}": 0xE0 + n for n in range(16)}}
        fields |= jpeg_metadata(((numbers.get(m, 0), content) for m, content in segments), b"")
    elif isinstance(comment := info.get("comment"), bytes | str):
        fields["comments"] = (comment.encode() if isinstance(comment, str) else comment,)
    return replace(stored, **{name: value for name, value in fields.items() if value})


def _pil_exif(image: Any) -> bytes | None:
    """EXIF as it was stored, or as it was changed or found elsewhere by Pillow."""
    from PIL import Image

    raw = image.info.get("exif")
    try:
        now = image.getexif()
        before = Image.Exif()
        if raw:
            before.load(raw)
        if raw and before.tobytes() == now.tobytes():
            return bytes(raw)
        kept = Image.Exif()
        for tag, value in now.items():
            if tag not in LAYOUT - {0x0112, 282, 283, 296}:
                kept[tag] = value
        for tag in (0x8769, 0x8825):
            if inner := now.get_ifd(tag):
                kept[tag] = dict(inner)
        return kept.tobytes().removeprefix(EXIF_PREFIX) if len(kept) else raw
    except Exception:  # broken EXIF, of which the raw bytes tell more
        return bytes(raw) if raw else None


def resources(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, content, all bytes) of Photoshop's image resources, as far as they are valid."""
    at = 0
    while at + 12 <= len(data) and data[at : at + 4] in _SIGNATURES:
        name = data[at + 6] + 1
        start = at + 6 + name + name % 2
        if start + 4 > len(data):
            return
        (size,) = struct.unpack_from(">I", data, start)
        end = start + 4 + size
        if end > len(data):
            return
        number = int.from_bytes(data[at + 4 : at + 6], "big")
        yield number, data[start + 4 : end], data[at : end + size % 2]
        at = end + size % 2


def resource(number: int, content: bytes) -> bytes:
    """One of Photoshop's image resources, without a name."""
    head = b"8BIM" + struct.pack(">HHI", number, 0, len(content))
    return head + content + b"\0" * (len(content) % 2)


def kept_resources(data: bytes) -> bytes | None:
    """The image resources that stay true of a new picture; None if there are none."""
    kept = b"".join(w for number, _, w in resources(data) if number not in _RESOURCES_DROPPED)
    return kept or None


def iptc_of(photoshop: bytes | None) -> bytes | None:
    """The IPTC block among image resources."""
    return next((content for n, content, _ in resources(photoshop or b"") if n == IPTC), None)


def as_text(comment: bytes) -> str:
    """A comment of a JPEG, which names no encoding."""
    try:
        return comment.rstrip(b"\0").decode("utf-8")
    except UnicodeDecodeError:
        return comment.rstrip(b"\0").decode("latin-1")
