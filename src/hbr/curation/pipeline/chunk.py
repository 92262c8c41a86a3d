"""The work on one chunk of images, from their bytes to rows and crops: stages a to f.

Every engine runs this same function. A worker is made once in each process, with its detector and
metrics; its result for a chunk depends on the chunk alone.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import cv2
import numpy as np
from PIL import Image

from hbr.curation.config import CurationConfig, OutputConfig, limits_of
from hbr.curation.pipeline.decoding import Decoded, decode
from hbr.curation.pipeline.loading import Detect, Models
from hbr.curation.pipeline.stages.boxes import PlacedBox, candidates
from hbr.curation.pipeline.stages.duplicates import phash
from hbr.curation.pipeline.stages.overlap import resolve_overlaps
from hbr.curation.pipeline.stages.quality import judge_quality
from hbr.curation.pipeline.stages.sharpness import judge_sharpness, judge_size
from hbr.curation.pipeline.stages.square import crop_pixels, cut_squares
from hbr.curation.pipeline.store import Store
from hbr.curation.record import ERRORS, Counts, Record, content_id, count
from hbr.curation.sources.base import SourceError, SourceImage
from hbr.errors import one_line, with_type
from hbr.image import PhotoError


@dataclass(frozen=True)
class Task:
    """One image to be worked on.

    Attributes:
        id: 16 hexadecimal digits of all that the source states about the image.
        image: what it states.
        repeat: 0, or how many images of the same key came before it.
    """

    id: str
    image: SourceImage
    repeat: int = 0

    @classmethod
    def of(cls, image: SourceImage, repeat: int = 0) -> Task:
        """The task of an image; its location on disk is not part of its id."""
        boxes = None
        if image.boxes is not None:
            boxes = sorted(f"{box!r}{box.keypoints or ''}" for box in image.boxes)
        said = (image.source, image.key, image.width, image.height, image.licence)
        more = [image.attribution, image.error, image.rotation, repeat]
        more += [image.grid] if image.grid != "stored" else []
        return cls(content_id(*said, *more, boxes), image, repeat)


@dataclass(frozen=True)
class Chunk:
    """Images that are done, and recorded as done, together.

    Attributes:
        id: of its tasks, whatever their order.
        tasks: the images.
    """

    id: str
    tasks: tuple[Task, ...]

    @classmethod
    def of(cls, tasks: Sequence[Task]) -> Chunk:
        """A chunk of these."""
        return cls(content_id(*sorted(task.id for task in tasks)), tuple(tasks))


@dataclass(frozen=True, kw_only=True)
class ChunkDone:
    """What an engine returns when a chunk is on disk.

    Attributes:
        id: the chunk's.
        images: how many it had.
        errors: how many of them could not be used.
        counts: (stage, reason) → rows.
        costs: stage → (things, CPU seconds).
        trouble: one of the images that could not be used, and why; empty where there is none.
    """

    id: str
    images: int
    errors: int
    counts: Counts
    costs: dict[str, tuple[int, float]] = field(default_factory=dict)
    trouble: str = ""


@dataclass
class _Image:
    """An image on its way through a chunk."""

    task: Task
    rows: list[Record]
    decoded: Decoded | None = None
    boxes: list[PlacedBox] | None = None

    def fail(self, error: Exception) -> None:
        """Stop it with an unexpected error: out of memory for this image, a bug in a library."""
        self.rows = [self.rows[0].stopped("read", "failed", with_type(error, 200))]
        self.decoded = None


class ChunkWorker:
    """Works on chunks; one in each process, on one thread."""

    def __init__(self, config: CurationConfig, store: Store, models: Models) -> None:
        cv2.setNumThreads(1)
        self._config = config
        self._store = store
        self._scorers, self._detect, self._tag = models.scorers, models.detect, models.tag
        self._costs: dict[str, tuple[int, float]] = {}

    def __call__(self, chunk: Chunk) -> ChunkDone:
        """Work on a chunk and write its part.

        Raises:
            OSError: the part cannot be written; nothing of it is there then.
        """
        self._costs = {}
        rows: list[tuple[Record, str, bytes | None]] = []
        errors, trouble = 0, ""
        for group in self._groups(chunk.tasks):
            for task, record, crop in self.records(group):
                rows.append((record, task.id, crop))
                if record.reason in ERRORS:
                    errors += 1
                    trouble = f"{task.image.id} ({record.reason}: {record.detail})"
        began = time.process_time()
        self._store.write_part(chunk.id, rows)
        self._spend("write", len(rows), began)
        counts = count(record for record, _, _ in rows)
        return ChunkDone(
            id=chunk.id,
            images=len(chunk.tasks),
            errors=errors,
            counts=counts,
            costs=self._costs,
            trouble=trouble,
        )

    def _groups(self, tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
        """Images that share a batch of the detector or the metrics."""
        detector = self._config.boxes.detector
        size = max(self._config.quality.batch, detector.batch if detector else 1)
        for start in range(0, len(tasks), size):
            yield tasks[start : start + size]

    def records(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Record, bytes | None]]:
        """The rows of some images, and the files of their crops."""
        images = [self._read(task) for task in tasks]
        self._find_people(images)
        crops: dict[str, np.ndarray] = {}
        for image in images:
            try:
                crops.update(self._to_crops(image))
            except Exception as error:
                image.fail(error)
        alive = [row for image in images for row in image.rows if row.id in crops]
        judged = {row.id: row for row in self._judge(alive, crops)}
        for image in images:
            for row in image.rows:
                crop = crops.pop(row.id, None)
                if crop is None:
                    yield image.task, row, None
                else:
                    row, file = self._encode(judged[row.id], crop)
                    yield image.task, row, file

    def _read(self, task: Task) -> _Image:
        """Decode an image, and lay its boxes on it."""
        began = time.process_time()
        image = task.image
        image_id = content_id(image.source, image.key, task.repeat)
        row = Record(
            id=content_id(image_id, "image", task.id),
            source=image.source,
            key=image.key,
            image_id=image_id,
            licence=image.licence,
            attribution=image.attribution,
        )
        out = _Image(task, [row])
        problem = _problem(task)
        if problem is not None or image.ref is None:
            reason, detail = problem or ("missing", "its place is not known")
            out.rows = [row.stopped("read", reason, detail, width=image.width, height=image.height)]
            return out
        try:
            data = image.ref.read_bytes()
            row = row.passed("read", image_sha256=hashlib.sha256(data).hexdigest())
            decoded = decode(
                data, image.key, rotation=image.rotation, max_pixels=self._config.max_pixels
            )
            self._lay_boxes(out, row, decoded)
        except SourceError as error:
            # a published manifest must not show folders of this machine
            detail = " ".join(str(error).replace(image.ref.path, image.key).split())
            out.rows = [row.stopped("read", "missing", detail)]
        except PhotoError as error:
            out.rows = [row.stopped("read", "unreadable", one_line(error))]
        except Exception as error:
            out.fail(error)
        self._spend("read", 1, began)
        return out

    def _lay_boxes(self, out: _Image, row: Record, decoded: Decoded) -> None:
        image = out.task.image
        row = row.passed("read", width=decoded.width, height=decoded.height)
        turned = decoded.counts_as(image.width, image.height, image.grid)
        if turned is None:
            said = f"{image.width}x{image.height}"
            detail = f"is {decoded.stored[0]}x{decoded.stored[1]}, the annotations say {said}"
            out.rows = [row.stopped("read", "other-size", detail)]
            return
        out.rows, out.decoded = [row], decoded
        if image.boxes is not None:
            out.boxes = [
                PlacedBox(
                    edges=decoded.place(box, turned=turned),
                    label=box.label,
                    kind=box.kind,
                    score=box.score,
                    crowd=box.crowd,
                    ignore=box.ignore,
                    keypoints=decoded.place_keypoints(box, turned=turned),
                )
                for box in image.boxes
            ]

    def _find_people(self, images: Sequence[_Image]) -> None:
        """Run the detector on the images that have no annotations."""
        blank = [image for image in images if image.decoded is not None and image.boxes is None]
        if not blank or self._detect is None:
            return
        config = self._config.boxes.detector
        assert config is not None
        began = time.process_time()
        for start in range(0, len(blank), config.batch):
            part = blank[start : start + config.batch]
            for image, people in zip(part, self._look(part), strict=True):
                if isinstance(people, Exception):
                    image.fail(people)
                    continue
                scored = zip(people.boxes.tolist(), people.scores.tolist(), strict=True)
                image.boxes = [
                    PlacedBox(edges=(x0, y0, x1, y1), label="person", score=score)
                    for (x0, y0, x1, y1), score in scored
                ]
        self._spend("detect", len(blank), began)

    def _look(self, images: Sequence[_Image]) -> list[Any]:
        """What the detector finds in each image, or why it failed.

        Raises:
            Exception: what the detector raises, if it fails on every image.
        """
        detect = cast(Detect, self._detect)
        try:
            return detect([cast(Decoded, image.decoded).pixels for image in images])
        except Exception as error:
            if len(images) > 1:
                return [found for image in images for found in self._look([image])]
            detect([np.full((480, 640, 3), 128, np.uint8)])
            return [error]

    def _to_crops(self, image: _Image) -> dict[str, np.ndarray]:
        """Stages a to e of one image, whose pixels are then released; its crops by id."""
        decoded, image.decoded = image.decoded, None
        crops: dict[str, np.ndarray] = {}
        if decoded is None:
            return crops
        config = self._config
        (row,) = image.rows
        if image.boxes is None:
            image.rows = [row.stopped("boxes", "unlabelled", "no boxes, no detector")]
            return crops
        began = time.process_time()
        limits = limits_of(config, row.source)
        assert limits.sharpness is not None
        assert limits.size is not None
        rows = candidates(row, image.boxes, config.boxes)
        if any(row.alive for row in rows):
            grey = cv2.cvtColor(decoded.pixels, cv2.COLOR_RGB2GRAY)
            rows = judge_sharpness(rows, grey, limits.sharpness)
        began = self._spend("sharpness", 1, began)
        rows = judge_size(rows, limits.size)
        rows = resolve_overlaps(cut_squares(rows, config.crop), config.crop)
        began = self._spend("crop", 1, began)
        for i, row in enumerate(rows):
            if row.alive:
                crops[row.id] = crop_pixels(decoded.pixels, *row.square, config.crop)
                rows[i] = row.passed("resize")
        self._spend("resize", sum(row.alive for row in rows), began)
        image.rows = rows
        return crops

    def _judge(self, rows: Sequence[Record], crops: dict[str, np.ndarray]) -> list[Record]:
        """Stage f, the perceptual hash, and the tags."""
        pixels = [crops[row.id] for row in rows]
        judged = judge_quality(rows, pixels, self._scorers, self._config, self._add)
        began = time.process_time()
        judged = [
            row.passed(row.stage, phash=f"{phash(crop):016x}")
            for row, crop in zip(judged, pixels, strict=True)
        ]
        self._spend("phash", len(judged), began)
        if self._tag is not None:
            began = time.process_time()
            alive = [i for i, row in enumerate(judged) if row.alive]
            found = self._tag([pixels[i] for i in alive]) if alive else []
            for i, tags in zip(alive, found, strict=True):
                judged[i] = judged[i].passed(judged[i].stage, tags=tuple(tags))
            self._spend("tags", len(alive), began)
        return judged

    def _encode(self, row: Record, crop: np.ndarray) -> tuple[Record, bytes]:
        began = time.process_time()
        file = encode_crop(crop, self._config.output)
        digest = hashlib.sha256(file).hexdigest()
        self._spend("encode", 1, began)
        return row.passed(row.stage, crop_sha256=digest, crop_size=len(file)), file

    def _spend(self, stage: str, n: int, began: float) -> float:
        now = time.process_time()
        self._add(stage, n, now - began)
        return now

    def _add(self, stage: str, n: int, seconds: float) -> None:
        before = self._costs.get(stage, (0, 0.0))
        self._costs[stage] = (before[0] + n, before[1] + seconds)


def encode_crop(crop: np.ndarray, config: OutputConfig) -> bytes:
    """The file of a crop [h, w, 3] uint8: PNG, or JPEG; the same crop gives the same bytes."""
    buffer = io.BytesIO()
    image = Image.fromarray(crop)
    if config.format == "png":
        image.save(buffer, "PNG", compress_level=6)
    else:
        full = config.jpeg_quality >= 90  # colour at full resolution, as `write_photo` has it
        image.save(buffer, "JPEG", quality=config.jpeg_quality, subsampling=0 if full else 2)
    return buffer.getvalue()


def _problem(task: Task) -> tuple[str, str] | None:
    """Why an image need not be opened."""
    if task.image.error is not None:
        if task.image.entry:
            return "entry", task.image.error
        ref = task.image.ref
        gone = ref is not None and ref.offset is None and not os.path.exists(ref.path)  # noqa: PTH110
        return "missing" if gone else "source", task.image.error
    if task.repeat:
        return "repeated", f"{task.image.source} names {task.image.key} again"
    return None
