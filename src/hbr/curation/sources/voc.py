"""Pascal VOC: an XML file for each image."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hbr.curation.sources.base import Box, SourceError, SourceImage
from hbr.curation.sources.disk_tables import SeenKeys
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import at, badly_named, broken, walk
from hbr.people.values import number, pixels, text

# An image of thousands of objects takes a megabyte.
MAX_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class VocSource:
    """Images and boxes of a folder of XML files.

    Attributes:
        name: of the source.
        annotations: the folder of XML files.
        images: the folder of images.
        vocabulary: what the names of objects mean.
        subset: a file of `ImageSets/Main`: only the images that it lists; a second column of -1
            leaves one out.
        one_based: pixels are counted from 1 and the last is included, as VOC does; False for
            files of other tools that count from 0 to the edge.
    """

    name: str
    annotations: Path
    images: Path
    vocabulary: Vocabulary
    subset: Path | None = None
    one_based: bool = True

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of the names of the XML files, or of the list."""
        with SeenKeys() as seen:
            for count, name in enumerate(self._names(), 1):
                if bad := badly_named(self.name, name):
                    yield bad
                elif seen.again(name):
                    said = f"{name} is named a second time by {self.subset}"
                    yield broken(self.name, f"{name}#line {count}", said)
                else:
                    yield self._image(name)

    def _names(self) -> Iterator[str]:
        if self.subset is None:
            yield from walk(self.annotations, lambda name: name.lower().endswith(".xml"))
            return
        try:
            with self.subset.open(encoding="utf-8-sig") as file:
                for line in file:
                    words = line.split()
                    if words and words[1:2] != ["-1"]:
                        yield f"{words[0]}.xml"
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{self.subset}: {error}") from None

    def _image(self, name: str) -> SourceImage:
        try:
            with (self.annotations / name).open("rb") as file:
                data = file.read(MAX_BYTES)
            root = ElementTree.fromstring(data)
        except OSError as problem:
            return broken(self.name, name, f"{name}: {problem.strerror or problem}")
        except (ElementTree.ParseError, ValueError, LookupError) as problem:
            return broken(self.name, name, f"{name} is no whole XML: {problem}")
        stem = str(PurePosixPath(name).with_suffix(""))
        file_name = text(root.findtext("filename")) or f"{stem}.jpg"
        if not PurePosixPath(file_name).suffix:
            file_name += ".jpg"
        ref, error = at(self.images, file_name)
        boxes = tuple(box for node in root.iter("object") for box in self._boxes(node))
        return SourceImage(
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

    def _boxes(self, node: ElementTree.Element) -> Iterator[Box]:
        label = text(node.findtext("name"))
        if label is None or self.vocabulary.role(label) is None:
            return
        difficult = number(node.findtext("difficult")) == 1
        for part in (node, *node.iter("part")):
            name = text(part.findtext("name")) or ""
            if part is node or self.vocabulary.role(name) == "head":
                box = self.vocabulary.box(name, self._edges(part), ignore=difficult)
                if box is not None:
                    yield box

    def _edges(self, node: ElementTree.Element) -> tuple[float, float, float, float]:
        edges = (number(node.findtext(f"bndbox/{e}")) for e in ("xmin", "ymin", "xmax", "ymax"))
        x0, y0, x1, y1 = edges
        first = 1 if self.one_based else 0
        return x0 - first, y0 - first, x1, y1
