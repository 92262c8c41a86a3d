"""Pascal VOC: an XML file for each image."""

from __future__ import annotations

import codecs
import contextlib
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from hbr.curation.sources.base import Box, SourceImage
from hbr.curation.sources.configs import VocConfig
from hbr.curation.sources.disk_tables import SeenKeys, on_disk
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import Places, badly_named, broken, unused, walk
from hbr.people.values import encoding_of, flag, number, open_text, pixels, text

# An image of thousands of objects takes a megabyte.
MAX_BYTES = 32 << 20
_BAD_XML = (ElementTree.ParseError, ValueError, LookupError)
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([A-Za-z0-9._-]+)[\"']")
# a byte that did not fit the encoding
_ESCAPED = re.compile(r"\\x[0-9a-f]{2}")


@dataclass(frozen=True)
class VocReader:
    """Images, in the folder `images`, and boxes of a folder of XML files."""

    name: str
    config: VocConfig
    images: Path
    vocabulary: Vocabulary

    def read(self) -> Iterator[SourceImage]:
        """The images in the order of the names of the XML files, or of the list."""
        looked_up = partial(Places, self.images, self._images_of())
        with on_disk(looked_up) as places, on_disk(SeenKeys) as seen:
            for count, name in enumerate(self._names(), 1):
                if bad := badly_named(self.name, name):
                    yield bad
                elif seen.again(name):
                    said = f"{name} is named a second time by {self.config.subset}"
                    yield broken(self.name, f"{name}#line {count}", said)
                else:
                    yield from self._image(name, places)

    def _names(self) -> Iterator[str]:
        if self.config.subset is None:
            yield from walk(self.config.annotations, lambda name: name.lower().endswith(".xml"))
            return
        with open_text(self.config.subset) as file:
            for line in file:
                words = line.split()
                if words and words[1:2] != ["-1"]:
                    yield f"{words[0]}.xml"

    def _images_of(self) -> Iterator[tuple[str, str]]:
        """Each XML file, without its suffix, and the image that it names."""
        for name in self._names():
            if badly_named(self.name, name):
                continue
            with contextlib.suppress(OSError, *_BAD_XML):
                yield _without_suffix(name), _image_of(self._parse(name), name)

    def _parse(self, name: str) -> ElementTree.Element:
        with (self.config.annotations / name).open("rb") as file:
            return ElementTree.fromstring(decode_xml(file.read(MAX_BYTES)))

    def _image(self, name: str, places: Places) -> Iterator[SourceImage]:
        try:
            root = self._parse(name)
        except OSError as problem:
            yield broken(self.name, name, f"{name}: {problem.strerror or problem}")
            return
        except _BAD_XML as problem:
            yield broken(self.name, name, f"{name} is no whole XML: {problem}")
            return
        stem = _without_suffix(name)
        ref, error = places.at(stem)
        unclear: list[str] = []
        boxes = tuple(box for node in root.iter("object") for box in self._boxes(node, unclear))
        yield SourceImage(
            source=self.name,
            # two XML files may name one image; their own names are unique
            key=stem,
            ref=ref,
            width=pixels(root.findtext("size/width")),
            height=pixels(root.findtext("size/height")),
            boxes=boxes,
            attribution=text(root.findtext("source/attribution"))
            or text(root.findtext("owner/name")),
            licence=text(root.findtext("source/license")),
            error=error,
        )
        if unclear:
            said = f"{name}: {len(unclear)} objects are left out: {unclear[0]}"
            yield unused(self.name, f"{name}, flags", said)

    def _boxes(self, node: ElementTree.Element, unclear: list[str]) -> Iterator[Box]:
        label = text(node.findtext("name"))
        if label is None or self.vocabulary.role(label) is None:
            return
        difficult = flag(node.findtext("difficult"))
        if difficult is None:
            unclear.append(f"difficult is {node.findtext('difficult')!r}, not 0 or 1")
            return
        for part in (node, *node.iter("part")):
            name = text(part.findtext("name")) or ""
            if part is node or self.vocabulary.role(name) == "head":
                box = self.vocabulary.box(name, self._edges(part), ignore=difficult)
                if box is not None:
                    yield box

    def _edges(self, node: ElementTree.Element) -> tuple[float, float, float, float]:
        edges = (number(node.findtext(f"bndbox/{e}")) for e in ("xmin", "ymin", "xmax", "ymax"))
        x0, y0, x1, y1 = edges
        first = 1 if self.config.one_based else 0
        return x0 - first, y0 - first, x1, y1


def decode_xml(data: bytes) -> str:
    """The text of an XML file, in the encoding of its byte order mark or its declaration.

    Files often are in another encoding than they declare (UTF-16 declared of UTF-8, none declared
    of GBK). Bytes that do not fit are escaped: tags and numbers are ASCII in all of these, so that
    only names are affected.
    """
    encoding = encoding_of(data)
    if encoding == "utf-8-sig" and (said := _DECLARED.match(data)):
        declared = said[1].decode("ascii")
        with contextlib.suppress(LookupError):
            # what can be read as ASCII here is not in 16 bits
            wide = codecs.lookup(declared).name.startswith(("utf-16", "utf-32"))
            encoding = encoding if wide else declared
    elif encoding == "utf-8-sig" and data[:2] in (b"<\0", b"\0<"):
        encoding = "utf-16-le" if data[:1] == b"<" else "utf-16-be"
    return data.decode(encoding, "backslashreplace")


def _image_of(root: ElementTree.Element, name: str) -> str:
    """The name of the image; of the XML file where none is stated, or it is not readable."""
    said = text(root.findtext("filename"))
    return _without_suffix(name) if said is None or _ESCAPED.search(said) else said


def _without_suffix(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
