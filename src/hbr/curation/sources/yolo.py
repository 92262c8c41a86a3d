"""YOLO: a text file for each image, a line for each object, classes by number."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from hbr.curation.sources.base import Box, ImageRef, SourceError, SourceImage
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import badly_named, unused, walk
from hbr.people.values import identifier, open_text
from hbr.people.yolo_lines import YoloFile, read_lines

log = logging.getLogger(__name__)

MAX_CLASSES = 100_000


@dataclass(frozen=True, kw_only=True)
class YoloReader:
    """Images, and boxes in text files with the same names.

    What a line may hold is in `yolo_lines`.

    Attributes:
        name: of the source.
        images: the folder of images.
        labels: the folder of text files.
        classes: the names of the classes, in their order.
        vocabulary: what they mean.
        keypoints: the `kpt_shape` of `data.yaml`; None if it has none.
    """

    name: str
    images: Path
    labels: Path
    classes: tuple[str, ...]
    vocabulary: Vocabulary
    keypoints: tuple[int, int] | None = None

    def read(self) -> Iterator[SourceImage]:
        """The images in the order of their names; bad lines are a record of their own."""
        n_guessed, guessed = 0, None
        for name in walk(self.images):
            if bad := badly_named(self.name, name):
                yield bad
                continue
            label = PurePosixPath(name).with_suffix(".txt")
            try:
                with open_text(self.labels / label) as opened:
                    file = read_lines(opened.read().splitlines(), len(self.classes), self.keypoints)
            except FileNotFoundError:
                # not annotated; annotated images without people have an empty file
                ref = ImageRef.file(self.images / name)
                yield SourceImage(source=self.name, key=name, ref=ref)
                continue
            except OSError as problem:
                file = YoloFile(problems=[(0, problem.strerror or str(problem))])
            if file.guessed:
                guessed = guessed or str(label)
                n_guessed += 1
            yield from self._image(name, label, file)
        if guessed is not None:
            log.warning(
                "%s: %d files fit more than one reading (boxes, outlines, key points; with "
                "confidence or track id), such as %s; a `kpt_shape` in data.yaml decides for poses",
                self.name,
                n_guessed,
                guessed,
            )

    def _image(self, name: str, label: PurePosixPath, file: YoloFile) -> Iterator[SourceImage]:
        """The image, and a record of the lines that cannot be used."""
        found = (
            self.vocabulary.box(
                self.classes[thing.index], thing.edges, score=thing.score, normalised=True
            )
            for thing in file.objects
        )
        boxes: tuple[Box, ...] | None = tuple(box for box in found if box is not None)
        error = None
        if file.problems:
            line, problem = file.problems[0]
            error = f"{label}, line {line}: {problem}" if line else f"{label}: {problem}"
            more = len(file.problems) - 1
            error += f" (and {more} more line{'s' if more > 1 else ''})" if more else ""
        ref = ImageRef.file(self.images / name)
        if error is None or file.objects:
            yield SourceImage(source=self.name, key=name, ref=ref, boxes=boxes)
            if error is not None:
                yield unused(self.name, f"{label}:line {line}", error)
        else:
            yield SourceImage(source=self.name, key=name, ref=ref, error=error)


def read_classes(path: Path) -> tuple[tuple[str, ...], tuple[int, int] | None]:
    """The classes' names, and the `kpt_shape` of key points.

    Args:
        path: `data.yaml` with `names`, or a text file with one name a line.

    Raises:
        SourceError: there are none in it.
    """
    try:
        with open_text(path) as file:
            content = file.read()
    except OSError as error:
        raise SourceError(f"{path}: {error}") from None
    if path.suffix.lower() not in (".yaml", ".yml"):
        return tuple(content.split("\n")[: len(content.splitlines())]), None
    import yaml

    try:
        data: Any = yaml.safe_load(content)
        names = data["names"]
        if isinstance(names, dict):
            names = {int(identifier(key) or ""): name for key, name in names.items()}
            if not all(0 <= number < MAX_CLASSES for number in names):
                raise ValueError
            names = [names.get(i, "") for i in range(max(names) + 1)]
        if not isinstance(names, list):
            raise TypeError
        return tuple(map(str, names)), _keypoint_shape(data.get("kpt_shape"), path)
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{path}: no list of names under `names`") from None


def _keypoint_shape(value: Any, path: Path) -> tuple[int, int] | None:
    if not value:
        return None
    if isinstance(value, list) and len(value) == 2 and all(isinstance(n, int) for n in value):
        count, dimensions = value
        if count >= 1 and dimensions in (2, 3):
            return count, dimensions
    raise SourceError(f"{path}: kpt_shape is {value!r}; it must be [number of key points, 2 or 3]")
