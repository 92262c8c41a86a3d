"""What a new file makes untrue in the metadata of the old one: mended, or removed.

EXIF is changed in place, so that maker notes and unknown tags keep their offsets. XMP is written
anew only if something in it is untrue.

Sources: Exif 2.32, 4.6; Adobe XMP part 2 and 3; Google's Motion Photo 1.0 and Photo Sphere; Ultra
HDR 1.0; MWG Guidelines 2.0, 5.9 (regions).
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.dom import minidom

from hbr.image.metadata import (
    EXIF_IFD,
    LONG,
    ORIENTATION,
    SHORT,
    XMP_ORIENTATION,
    byte_order,
    entries,
)

_WIDTHS, _HEIGHTS = (0x0100, 0xA002, 0x1001), (0x0101, 0xA003, 0x1002)
_SUBJECT_AREA, _SUBJECT_PLACE, _INTEROPERABILITY = 0x9214, 0xA214, 0xA005
_XIAOMI_MOTION = 0x8897

_GOOGLE = "http://ns.google.com/photos/1.0/"
# Namespaces of further pictures, videos and depth maps in the old file, and what is lost with them.
_EMBEDDED = {
    _GOOGLE + "container/": None,
    _GOOGLE + "container/item/": None,
    _GOOGLE + "image/": "the original picture",
    _GOOGLE + "depthmap/": "a depth map",
    _GOOGLE + "audio/": "sound",
    _GOOGLE + "focus/": "a depth map",
    "http://ns.google.com/photos/dd/1.0/device/": "a depth map",
    "http://ns.adobe.com/hdr-gain-map/1.0/": "a gain map",
    "http://ns.apple.com/HDRGainMap/1.0/": "a gain map",
    "http://ns.apple.com/pixeldatainfo/1.0/": None,
}
_MOTION = re.compile(r"MotionPhoto|MicroVideo|VideoLength|MotionVideo")
_TIFF, _EXIF = "http://ns.adobe.com/tiff/1.0/", "http://ns.adobe.com/exif/1.0/"
_DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
_AREA = "http://ns.adobe.com/xmp/sType/Area#"
_MICROSOFT_REGION = "http://ns.microsoft.com/photo/1.2/t/Region#"
_SIZES = {
    (_TIFF, "ImageWidth"): 1,
    (_TIFF, "ImageLength"): 0,
    (_EXIF, "PixelXDimension"): 1,
    (_EXIF, "PixelYDimension"): 0,
    (_DIMENSIONS, "w"): 1,
    (_DIMENSIONS, "h"): 0,
}
_PANORAMA = _GOOGLE + "panorama/"


@dataclass(frozen=True)
class Renewal:
    """How a new picture differs from the old one.

    Attributes:
        orientation: 1 to 8 as in EXIF: how the old one was turned to be upright.
        old: (height, width) before the turn.
        new: (height, width) of the new picture.
    """

    orientation: int
    old: tuple[int, int]
    new: tuple[int, int]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """A point of the old picture, in pixels, mapped to the new one."""
        height, width = self.old
        if self.orientation > 4:
            x, y, height, width = y, x, width, height
        if self.orientation in (2, 3, 6, 7):
            x = width - x
        if self.orientation in (3, 4, 7, 8):
            y = height - y
        return x * self.new[1] / width, y * self.new[0] / height

    def extent(self, w: float, h: float) -> tuple[float, float]:
        """Width and height of something in the old picture, mapped to the new one."""
        height, width = self.old
        if self.orientation > 4:
            w, h, height, width = h, w, width, height
        return w * self.new[1] / width, h * self.new[0] / height

    def unit(self) -> Renewal:
        """The same for coordinates that count from 0 to 1."""
        return dataclasses.replace(self, old=(1, 1), new=(1, 1))


def renewed_exif(exif: bytes, change: Renewal) -> bytes:
    """The same EXIF with what is true of the new picture.

    Orientation 1, no thumbnail, no claim of a video; sizes, where it states them, and the place of
    the subject are those of the new picture.
    """
    order = byte_order(exif) or "<"
    data = bytearray(exif)
    (first,) = struct.unpack_from(order + "I", data, 4)
    for tag, kind, count, at in _all_entries(exif, order, first):
        if tag == ORIENTATION and kind == SHORT:
            struct.pack_into(order + "H", data, at, 1)
        elif tag in _WIDTHS + _HEIGHTS and kind in (SHORT, LONG):
            edge = change.new[1 if tag in _WIDTHS else 0]
            value = edge if kind == LONG else min(edge, 65535)
            struct.pack_into(order + ("I" if kind == LONG else "H"), data, at, value)
        elif tag in (_SUBJECT_AREA, _SUBJECT_PLACE) and kind == SHORT and 2 <= count <= 4:
            _move_subject(data, order, count, at, change)
        elif tag == _XIAOMI_MOTION and kind == 1 and count <= 4:
            data[at : at + 4] = b"\0" * 4
    (n,) = struct.unpack_from(order + "H", data, first)
    link = first + 2 + 12 * n
    if link + 4 <= len(data):
        struct.pack_into(order + "I", data, link, 0)
    return bytes(data)


def _all_entries(exif: bytes, order: str, first: int) -> Iterator[tuple[int, int, int, int]]:
    """The entries of the main directory, and of those of EXIF and interoperability below it."""
    waiting = [first]
    for _ in range(3):
        if not waiting:
            return
        for entry in entries(exif, order, waiting.pop()):
            yield entry
            if entry[0] in (EXIF_IFD, _INTEROPERABILITY) and entry[1] in (LONG, 13):
                waiting.append(struct.unpack_from(order + "I", exif, entry[3])[0])


def _move_subject(data: bytearray, order: str, count: int, at: int, change: Renewal) -> None:
    """A point, a circle (with its diameter) or a rectangle (with width and height), in place."""
    if count > 2:
        (at,) = struct.unpack_from(order + "I", data, at)
    if at + 2 * count > len(data):
        return
    x, y, *size = struct.unpack_from(f"{order}{count}H", data, at)
    moved = [*change.place(x, y)]
    if len(size) == 1:
        moved.append(change.extent(size[0], size[0])[0])
    elif size:
        moved.extend(change.extent(*size))
    fitting = (min(65535, max(0, round(v))) for v in moved)
    struct.pack_into(f"{order}{count}H", data, at, *fitting)


def renewed_xmp(xmp: bytes, change: Renewal) -> tuple[bytes | None, set[str]]:
    """The same XMP with what is true of the new picture, and the kinds of things it loses.

    XMP that is not XML is dropped if it may claim anything of the old picture (`_harmless`).
    """
    upright = XMP_ORIENTATION.sub(rb"\g<1>1", xmp) if change.orientation != 1 else xmp
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:
        return None, {"broken XMP"}
    try:
        root: Any = minidom.parseString(upright.strip(b"\0 \t\r\n")).documentElement
        lost: set[str] = set()
        touched = [_mend(node, change, lost) for node in list(_nodes(root))]
        if not any(touched):
            return upright, lost
        body = root.toxml().encode("utf-8", "xmlcharrefreplace")
    except Exception:  # expat's errors, recursion, and what nonsense brings up in the DOM
        return (upright, set()) if _harmless(upright) else (None, {"broken XMP"})
    if b"<?xpacket" not in xmp:
        return body, lost
    start = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    return start + body + b'\n<?xpacket end="w"?>', lost


def _harmless(xmp: bytes) -> bool:
    """Whether XMP that is not XML names nothing that a new file makes untrue."""
    words = (b"MotionPhoto", b"MicroVideo", b"hdrgm", b"GainMap", b"Dimension", b"ImageWidth")
    return not any(word in xmp for word in words)


def _nodes(element: Any) -> Iterator[Any]:
    """All attributes and elements, each before what is in it."""
    yield element
    yield from list((element.attributes or {}).values())
    for child in list(element.childNodes):
        if child.nodeType == child.ELEMENT_NODE:
            yield from _nodes(child)


def _mend(node: Any, change: Renewal, lost: set[str]) -> bool:
    """Mend or remove what is untrue in an attribute or element; whether there was something."""
    space, name = node.namespaceURI or "", node.localName or node.nodeName
    if node.nodeType == node.ATTRIBUTE_NODE and node.name.startswith("xmlns"):
        return False
    if space in _EMBEDDED or _MOTION.match(name):
        kind = _EMBEDDED.get(space, "a video")
        lost.update({kind} if kind else ())
        return _remove(node)
    if name in ("HasExtendedXMP", "Thumbnails"):
        if name == "HasExtendedXMP":
            lost.add("extended XMP")
        return _remove(node)
    if _is_plain(node):
        return _mend_value(node, space, name, change)
    return _mend_area(node, change)


def _mend_value(node: Any, space: str, name: str, change: Renewal) -> bool:
    if (space, name) in _SIZES:
        return _set(node, str(change.new[_SIZES[space, name]]))
    if space == _PANORAMA and name.endswith("Pixels"):
        number = float(_text(node))
        across = "Width" in name or "Left" in name
        return _set(node, str(round(change.extent(number, number)[0 if across else 1])))
    if space == _MICROSOFT_REGION and name == "Rectangle":
        x, y, w, h = (float(v) for v in _text(node).split(","))
        return _set(node, ", ".join(f"{v:.6g}" for v in _turned(x, y, w, h, change)))
    return False


def _mend_area(element: Any, change: Renewal) -> bool:
    """A region of the MWG: centre and size in attributes or elements, from 0 to 1."""
    if change.orientation == 1 or element.nodeType != element.ELEMENT_NODE:
        return False
    parts = {}
    for node in [*(element.attributes or {}).values(), *element.childNodes]:
        if node.namespaceURI == _AREA and node.localName in ("x", "y", "w", "h"):
            parts[node.localName] = node
    if not {"x", "y"} <= set(parts):
        return False
    numbers = {name: float(_text(node)) for name, node in parts.items()}
    unit = change.unit()
    moved = dict(zip("xy", unit.place(numbers["x"], numbers["y"]), strict=True))
    moved |= dict(zip("wh", unit.extent(numbers.get("w", 0), numbers.get("h", 0)), strict=True))
    for name, node in parts.items():
        _set(node, f"{moved[name]:.6g}")
    return True


def _turned(x: float, y: float, w: float, h: float, change: Renewal) -> tuple[float, ...]:
    """Left, top, width and height, from 0 to 1, on the picture turned upright."""
    unit = change.unit()
    (x0, y0), (x1, y1) = unit.place(x, y), unit.place(x + w, y + h)
    return min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)


def _is_plain(node: Any) -> bool:
    """Whether it is a value: an attribute, or an element that holds only text."""
    if node.nodeType == node.ATTRIBUTE_NODE:
        return True
    children = node.childNodes
    return bool(children) and all(child.nodeType == child.TEXT_NODE for child in children)


def _text(node: Any) -> str:
    if node.nodeType == node.ATTRIBUTE_NODE:
        return str(node.value)
    return "".join(child.data for child in node.childNodes)


def _set(node: Any, value: str) -> bool:
    """Give a value to a plain node; whether that changed it."""
    if _text(node) == value:
        return False
    if node.nodeType == node.ATTRIBUTE_NODE:
        node.value = value
    else:
        node.firstChild.data = value
    return True


def _remove(node: Any) -> bool:
    if node.nodeType == node.ATTRIBUTE_NODE:
        if node.ownerElement is not None:
            node.ownerElement.removeAttributeNode(node)
    elif node.parentNode is not None:
        node.parentNode.removeChild(node)
    return True
