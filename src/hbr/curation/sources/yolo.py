"""YOLO: a text file for each image, a line for each object, classes by number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hbr.curation.sources.base import Box, ImageRef, SourceError, SourceImage
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import badly_named, walk
from hbr.image import is_photo_name
from hbr.people.values import number

MAX_CLASSES = 100_000


@dataclass(frozen=True, kw_only=True)
class YoloSource:
    """Images, and boxes in text files with the same names.

    The line is `class x y w h`, centre and size as parts of the image's, with an optional
    confidence; `class x0 y0 x1 y1 x2 y2 …` is an outline, whose box is taken.

    Attributes:
        name: of the source.
        images: the folder of images.
        labels: the folder of text files.
        classes: the names of the classes, in their order.
        vocabulary: what they mean.
        keypoints: `data.yaml` states a `kpt_shape`: what follows the box are key points.
    """

    name: str
    images: Path
    labels: Path
    classes: tuple[str, ...]
    vocabulary: Vocabulary
    keypoints: bool = False

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of their names."""
        for name in walk(self.images, is_photo_name):
            if bad := badly_named(self.name, name):
                yield bad
                continue
            path = self.labels / PurePosixPath(name).with_suffix(".txt")
            boxes: tuple[Box, ...] | None = None
            error = None
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
                boxes, error = self._boxes(lines, path.name)
            except FileNotFoundError:
                pass  # not annotated; annotated images without people have an empty file
            except (OSError, UnicodeDecodeError) as problem:
                error = f"{path.name}: {problem}"
            yield SourceImage(
                source=self.name,
                key=name,
                ref=ImageRef.file(self.images / name),
                boxes=boxes,
                error=error,
            )

    def _boxes(self, lines: list[str], file: str) -> tuple[tuple[Box, ...], str | None]:
        boxes, error = [], None
        for count, line in enumerate(lines, 1):
            words = line.split()
            if not words:
                continue
            values = [number(word) for word in words]
            known = 0 <= values[0] < len(self.classes)
            if not known or len(values) < 5:
                error = error or f"{file}, line {count}: a class and at least 4 numbers expected"
                continue
            label = self.classes[int(values[0])]
            edges, score = self._edges(values[1:])
            box = self.vocabulary.box(label, edges, score=score, normalised=True)
            if box is not None:
                boxes.append(box)
        return tuple(boxes), error

    def _edges(self, values: list[float]) -> tuple[list[float], float | None]:
        if len(values) > 5 and not self.keypoints:
            xs, ys = values[0::2], values[1::2]
            return [min(xs), min(ys), max(xs), max(ys)], None
        x, y, w, h = values[:4]
        score = values[4] if len(values) == 5 else None
        return [x - w / 2, y - h / 2, x + w / 2, y + h / 2], score


def read_classes(path: Path) -> tuple[tuple[str, ...], bool]:
    """The classes' names, and whether lines hold key points.

    Args:
        path: `data.yaml` with `names`, or a text file with one name a line.

    Raises:
        SourceError: there are none in it.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: {error}") from None
    if path.suffix.lower() not in (".yaml", ".yml"):
        return tuple(content.split("\n")[: len(content.splitlines())]), False
    import yaml

    try:
        data: Any = yaml.safe_load(content)
        names = data["names"]
        if isinstance(names, dict):
            if not all(0 <= number < MAX_CLASSES for number in names):
                raise ValueError
            names = [names.get(i, "") for i in range(max(names) + 1)]
        if not isinstance(names, list):
            raise TypeError
        return tuple(map(str, names)), bool(data.get("kpt_shape"))
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
        raise SourceError(f"{path}: no list of names under `names`") from None
