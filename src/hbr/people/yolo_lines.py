"""What the numbers after the class mean in a YOLO file of labels or of predictions.

A line holds a body, and predictions may add a confidence, a track id, or both, in this order:

    box       x y w h                     centre and size, as parts of the image's
    outline   x0 y0 x1 y1 x2 y2 …         three points or more; a rotated box is four
    pose      x y w h, then K key points of x y or x y v

A line alone is ambiguous: six numbers may be a triangle, or a box with confidence and track id. So
the tails and the kind of pose are decided for all lines of a file together, by how many numbers the
lines have and by their ranges. The reading that most lines fit is taken; a line that does not fit
it is a problem, the others count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hbr.people.values import identifier, number

# exporters round; ultralytics tolerates as much below 0
_SLACK = 0.01
# key points of predictions may lie beyond the box by this share of its size
_BEYOND = 0.25
# COCO's skeleton, where data.yaml does not state a shape
_USUAL_SHAPES = ((17, 3), (17, 2))


@dataclass(frozen=True)
class YoloObject:
    """An object of a file.

    Attributes:
        index: of the class.
        edges: x0, y0, x1, y1 as parts of the image's width and height.
        score: the confidence in [0, 1]; None if there is none.
    """

    index: int
    edges: tuple[float, float, float, float]
    score: float | None = None


@dataclass
class YoloFile:
    """The contents of a file.

    Attributes:
        objects: in the order of the lines.
        problems: (number of the line, what is wrong with it).
        guessed: all lines would also fit another reading, with other boxes.
    """

    objects: list[YoloObject] = field(default_factory=list)
    problems: list[tuple[int, str]] = field(default_factory=list)
    guessed: bool = False


@dataclass(frozen=True)
class _Line:
    number: int
    index: int
    values: tuple[float, ...]


@dataclass(frozen=True)
class _Reading:
    """One way to read all lines of a file.

    Attributes:
        confidence, track: what follows the body.
        pose: (K, dimensions) of key points; None for boxes and outlines.
        near: the key points must lie in the box or close by.
    """

    confidence: bool = False
    track: bool = False
    pose: tuple[int, int] | None = None
    near: bool = False

    def read(self, line: _Line) -> YoloObject | None:
        """The object of a line; None if the line does not fit."""
        end = len(line.values) - self.confidence - self.track
        body, tail = line.values[:end], line.values[max(end, 0) :]
        score = tail[0] if self.confidence and tail else None
        if end < 4 or (score is not None and not 0 <= score <= 1):
            return None
        if self.track and not (tail[-1] >= 0 and tail[-1].is_integer()):
            return None
        if end == 4:
            edges = _box(body)
        elif self.pose is not None:
            edges = _posed(body, self.pose, near=self.near)
        else:
            edges = _outlined(body)
        return None if edges is None else YoloObject(line.index, edges, score)


_TAILS = [(False, False), (True, False), (False, True), (True, True)]


def read_lines(
    lines: Sequence[str], n_classes: int, keypoints: tuple[int, int] | None = None
) -> YoloFile:
    """Read the lines of a file.

    Args:
        n_classes: how many classes there are.
        keypoints: the `kpt_shape` of data.yaml: number of key points, and 2 or 3 numbers each.
    """
    file = YoloFile()
    parsed: list[_Line] = []
    for count, words in enumerate(map(str.split, lines), 1):
        if not words:
            continue
        index = identifier(words[0]) or ""
        values = tuple(map(number, words[1:]))
        if not (index.isascii() and index.isdigit() and int(index) < n_classes):
            problem = f"{words[0]!r} is none of the {n_classes} classes"
        elif len(values) < 4 or any(value != value for value in values):
            problem = "a class and at least 4 numbers expected"
        else:
            parsed.append(_Line(count, int(index), values))
            continue
        file.problems.append((count, problem))
    reading, file.guessed = _best(parsed, keypoints)
    boxes = any(len(line.values) == 4 for line in parsed) and not reading.confidence
    for line in parsed:
        found = reading.read(line) or (_with_confidence(line) if boxes else None)
        if found is None:
            problem = f"{len(line.values)} numbers that are no box and no outline in parts of 1"
            file.problems.append((line.number, problem))
        else:
            file.objects.append(found)
    file.problems.sort()
    return file


def _with_confidence(line: _Line) -> YoloObject | None:
    """A box with a confidence, among boxes without."""
    return _Reading(confidence=True).read(line) if len(line.values) == 5 else None


def _best(lines: Sequence[_Line], keypoints: tuple[int, int] | None) -> tuple[_Reading, bool]:
    """The reading that the most lines fit, else the plainest; and whether it is a guess."""
    if keypoints is not None:
        readings = [_Reading(*tail, keypoints) for tail in _TAILS]
    else:
        readings = [_Reading(*tail) for tail in _TAILS]
        readings += [_Reading(*tail, shape, True) for shape in _USUAL_SHAPES for tail in _TAILS]
    merits = ((_merit(reading, lines), reading) for reading in readings)
    ranked = sorted(merits, key=lambda pair: pair[0], reverse=True)
    (most, best), rest = ranked[0], ranked[1:]
    edges = _edges(best, lines)
    return best, any(
        merit[0] == most[0] > 0 and _edges(reading, lines) != edges for merit, reading in rest
    )


def _edges(reading: _Reading, lines: Sequence[_Line]) -> list[object]:
    return [found and found.edges for found in map(reading.read, lines)]


def _merit(reading: _Reading, lines: Sequence[_Line]) -> tuple[float, ...]:
    """How well lines fit a reading, larger is better; the first number that differs decides."""
    fitting = [line for line in lines if reading.read(line) is not None]
    if reading.track and len({line.values[-1] for line in fitting}) < len(fitting):
        return (-1, 0, 0, 0, 0)  # an id twice in one image
    tail = reading.confidence + reading.track
    bodies = [len(line.values) - tail for line in fitting]
    posed = sum(body > 4 for body in bodies) if reading.near else 0
    # no tool writes triangles often, or predicts boxes beyond the image; key points that all lie
    # in their box are no coincidence
    odd = sum(body == 6 for body in bodies) if reading.pose is None else 0
    odd += sum(not _inside(found.edges) for found in map(reading.read, fitting) if found and tail)
    return (len(fitting), posed, -odd, -tail, -reading.track)


def _box(body: Sequence[float]) -> tuple[float, float, float, float] | None:
    x, y, w, h = body
    if not _inside(body) or min(w, h) < 0:
        return None
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def _outlined(body: Sequence[float]) -> tuple[float, float, float, float] | None:
    if len(body) < 6 or len(body) % 2 or not _inside(body):
        return None
    xs, ys = body[0::2], body[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _posed(
    body: Sequence[float], shape: tuple[int, int], *, near: bool
) -> tuple[float, float, float, float] | None:
    """The box of a pose; with `near`, only if its labelled key points lie in it or close by."""
    count, dimensions = shape
    edges = _box(body[:4])
    if edges is None or len(body) != 4 + count * dimensions:
        return None
    x0, y0, x1, y1 = edges
    wide, high = _BEYOND * body[2] + _SLACK, _BEYOND * body[3] + _SLACK
    for at in range(4, len(body) if near else 4, dimensions):
        x, y, *visibility = body[at : at + dimensions]
        if visibility and not 0 <= visibility[0] <= 2:
            return None
        labelled = visibility[0] > 0 if visibility else (x, y) != (0, 0)
        inside = x0 - wide <= x <= x1 + wide and y0 - high <= y <= y1 + high
        if labelled and not inside:
            return None
    return edges


def _inside(values: Sequence[float]) -> bool:
    return all(-_SLACK <= value <= 1 + _SLACK for value in values)
