"""What a worker process does: read the two files of a pair, and compute every metric on them.

Importing this loads no torch, so that the process that hands out the work stays small.

Shapes: b pairs of one size, h w pixels.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbr.devices import exact_inference, is_out_of_memory
from hbr.errors import display_name, reason
from hbr.evaluation.annotated import AnnotatedPictures
from hbr.evaluation.pairing import PicturePair
from hbr.evaluation.settings import EvaluateConfig
from hbr.image import Photo, PhotoError, read_photo
from hbr.image.pixels import peak
from hbr.image.reading import named_bytes
from hbr.ledger import read_rows
from hbr.metrics import Metric, MetricInfo, load_metric

if TYPE_CHECKING:
    from torch import Tensor

# in the keys of known values: changes whenever pictures are prepared in another way
_PIXELS = "8 bits on white"


@dataclass(kw_only=True)
class Measured:
    """The results for one pair.

    Attributes:
        pair: the files.
        values: metric id → number, always finite.
        errors: metric id → one line.
        error: one line if the pair could not be measured at all.
        notes: notes about the comparison: resized, grey.
        skipped: skipped on request; `error` gives the reason.
        key: hash of both files' contents and of the comparison settings; empty if unreadable.
        known: metric ids whose values come from an earlier run.
    """

    pair: PicturePair
    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    notes: list[str] = field(default_factory=list)
    skipped: bool = False
    key: str = ""
    known: frozenset[str] = frozenset()


def version_of(info: MetricInfo) -> str:
    """The cache key of a value: it changes whenever the metric's numbers do."""
    return f"{info.id}@{info.implementation}-{info.version}"


@dataclass(frozen=True)
class Availability:
    """Which metrics a process could load.

    Attributes:
        infos: id → its row as it was loaded: the version then names the package and the weights
            that its numbers depend on.
        unavailable: id → the reason, in one line.
        warnings: lines about the annotations of people.
    """

    infos: Mapping[str, MetricInfo] = field(default_factory=dict)
    unavailable: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def read_known(file: Path | None, metrics: Iterable[MetricInfo]) -> dict[str, dict[str, Any]]:
    """Values of an earlier run: key → {"values", "notes"}."""
    found: dict[str, dict[str, Any]] = {}
    wanted = {version_of(info): info.id for info in metrics}
    for row in read_rows(file) if file is not None else ():
        with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
            values = {wanted[v]: float(x) for v, x in row["values"].items() if v in wanted}
            entry = found.setdefault(row["key"], {"values": {}, "notes": row["notes"]})
            entry["values"].update(values)
    return found


def as_row(measured: Measured, metrics: Mapping[str, MetricInfo]) -> dict[str, Any] | None:
    """A row for `read_known`, of metrics as they were loaded; None if nothing new was found."""
    new = {k: v for k, v in measured.values.items() if k not in measured.known}
    if not new or not measured.key:
        return None
    values = {version_of(metrics[name]): value for name, value in new.items()}
    return {"key": measured.key, "values": values, "notes": measured.notes}


@dataclass
class _Loaded:
    """A pair in memory."""

    measured: Measured
    restored: Photo
    reference: Photo | None


class Measurer:
    """Computes metrics, which are loaded once, on pairs."""

    def __init__(
        self, config: EvaluateConfig, known: Path | None, pairs: Sequence[PicturePair] = ()
    ) -> None:
        """Load the available metrics; `available` lists those that cannot be loaded.

        Args:
            config: what to compute: the metrics over single pictures.
            known: a file of values of an earlier run (`read_known`).
            pairs: all of the evaluation, of which no two can have the people of one name.
        """
        self.config = config
        self.metrics: dict[str, Metric] = {}
        unavailable: dict[str, str] = {}
        self._people: AnnotatedPictures | None = None
        for name, info in config.infos.items():
            if info.kind == "distribution":
                continue
            try:
                if info.kind == "person" and self._people is None:
                    self._people = AnnotatedPictures(
                        config.people,
                        pose=config.pose,
                        device=config.device,
                        grid=config.people_grid,
                        border=config.crop_border,
                        pairs=pairs,
                    )
                self.metrics[name] = load_metric(name, device=config.device, weights=config.weights)
            except Exception as error:  # of a device that is not there, torch raises anything
                unavailable[name] = why_not(name, error)
        infos = {
            name: replace(metric.info, crop=metric.info.crop + config.crop_border)
            for name, metric in self.metrics.items()
        }
        warning = None if self._people is None else self._people.warning
        self.available = Availability(infos, unavailable, (warning,) if warning else ())
        self.known = read_known(known, infos.values())
        self._how = f"size {config.size}, {self._people.digest if self._people else 'no people'}"
        self._how += f", {_PIXELS}"
        if config.crop_border:
            self._how += f", border {config.crop_border}"

    def __call__(self, pairs: Sequence[PicturePair]) -> list[Measured]:
        """Measure pairs, batched by size; an error affects only its own pair."""
        loaded: list[_Loaded] = []
        out: list[Measured] = []
        for pair in pairs:
            measured = Measured(pair=pair)
            out.append(measured)
            try:
                pictures = self._read(measured)
            except Exception as error:
                measured.error = why_failed(error)
                continue
            if pictures is not None:
                loaded.append(pictures)
        batches: dict[tuple[int, int], list[_Loaded]] = defaultdict(list)
        for pictures in loaded:
            batches[pictures.restored.size].append(pictures)
        for batch in batches.values():
            self._measure(batch)
        return out

    def _read(self, measured: Measured) -> _Loaded | None:
        """Both pictures; None if nothing is left to compute."""
        pair = measured.pair
        files = [pair.restored] if pair.reference is None else [pair.restored, pair.reference]
        contents = [_content(file) for file in files]
        digests = "".join(hashlib.sha256(data).hexdigest() for data in contents)
        measured.key = hashlib.sha256(f"{digests} {self._how}".encode()).hexdigest()
        kept = self.known.get(measured.key)
        if kept:
            measured.values.update(kept["values"])
            measured.known = frozenset(kept["values"])
            measured.notes = list(kept["notes"])
            if measured.known >= self.metrics.keys():
                return None
        named = zip(files, contents, strict=True)
        photos = [read_photo(named_bytes(content, str(file))) for file, content in named]
        restored, reference = photos[0], photos[1] if len(photos) > 1 else None
        measured.notes = [
            f"the {name} has transparent pixels; compared on white"
            for name, photo in zip(("restored", "reference"), photos, strict=False)
            if photo.alpha is not None and photo.alpha.min() < peak(photo.alpha.dtype)
        ]
        restored = restored.displayed()
        reference = None if reference is None else reference.displayed()
        if reference is not None:
            fitted = self._fit(restored, reference, measured)
            if fitted is None:
                return None
            restored = fitted
            if (restored.mode == "grey") != (reference.mode == "grey"):
                which = "restored" if restored.mode == "grey" else "reference"
                measured.notes.append(f"the {which} is grey; compared as colour with R = G = B")
        restored = self._without_border(restored)
        reference = None if reference is None else self._without_border(reference)
        return _Loaded(measured, restored, reference)

    def _without_border(self, photo: Photo) -> Photo:
        border = self.config.crop_border
        if not border:
            return photo
        h, w = photo.size
        if min(h, w) <= 2 * border:
            raise PhotoError(f"nothing is left of {w}x{h} pixels without a border of {border}")
        return replace(photo, pixels=photo.pixels[border : h - border, border : w - border])

    def _fit(self, restored: Photo, reference: Photo, measured: Measured) -> Photo | None:
        """The restored picture at the size of its reference; None if the pair is left out."""
        if restored.size == reference.size:
            return restored
        (h, w), (height, width) = restored.size, reference.size
        sizes = f"the restored picture is {w}x{h}, its reference {width}x{height}"
        if self.config.size == "resize":
            measured.notes.append(f"resized from {w}x{h} to {width}x{height}")
            return _resized(restored, reference.size)
        if self.config.size == "skip":
            measured.skipped = True
            measured.error = sizes
            return None
        hint = "--size resize resizes it, --size skip leaves the pair out"
        raise PhotoError(f"{display_name(measured.pair.restored)}: {sizes}; {hint}")

    def _measure(self, batch: list[_Loaded]) -> None:
        import torch

        restored = torch.cat([item.restored.tensor() for item in batch])  # [b, 3, h, w]
        references = [item.reference for item in batch if item.reference is not None]
        reference = torch.cat([r.tensor() for r in references]) if references else None
        with exact_inference():
            for name, metric in self.metrics.items():
                todo = [i for i, item in enumerate(batch) if name not in item.measured.known]
                self._apply(metric, batch, restored, reference, todo)

    def _apply(
        self,
        metric: Metric,
        batch: list[_Loaded],
        restored: Tensor,
        reference: Tensor | None,
        todo: list[int],
    ) -> None:
        """One metric on a batch; if that fails, on each half, down to the pair that it fails on."""
        if not todo:
            return
        name = metric.info.id
        picked = restored if len(todo) == len(batch) else restored[todo]
        against = reference if reference is None or len(todo) == len(batch) else reference[todo]
        extra: dict[str, Any] = {}
        try:
            if metric.info.kind == "person":
                assert self._people is not None  # it was loaded with the metric
                picked_items = [batch[i] for i in todo]
                extra = self._people(
                    metric.info,
                    [item.measured.pair for item in picked_items],
                    [item.reference or item.restored for item in picked_items],
                    [item.restored for item in picked_items],
                )
            scores = metric(picked, against, **extra).tolist()
        except Exception as error:
            if len(todo) > 1:
                middle = len(todo) // 2
                for half in (todo[:middle], todo[middle:]):
                    self._apply(metric, batch, restored, reference, half)
                return
            batch[todo[0]].measured.errors[name] = why_failed(error)
            return
        for i, score in zip(todo, scores, strict=True):
            if math.isfinite(score):
                batch[i].measured.values[name] = score
            elif metric.info.kind == "person" and math.isnan(score):
                batch[i].measured.notes.append(f"{name}: no person to measure")
            else:
                batch[i].measured.errors[name] = f"{name} gives {score} on this picture"


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PhotoError(f"{display_name(file)}: {error.strerror or error}") from None


def _resized(photo: Photo, size: tuple[int, int]) -> Photo:
    """A photo at (height, width), by Pillow's antialiased bicubic, in 8 bits."""
    import numpy as np
    from PIL import Image

    height, width = size
    image = photo.pil().resize((width, height), Image.Resampling.BICUBIC)
    return Photo(pixels=np.array(image), mode=photo.mode)


def why_failed(error: BaseException) -> str:
    """What went wrong with a pair or a metric, for a row."""
    if is_out_of_memory(error):
        return "out of memory; fewer --workers, a smaller --batch or --device cpu need less"
    return reason(error)


def why_not(name: str, error: BaseException) -> str:
    """Why a metric cannot be loaded, with its name."""
    line = why_failed(error)
    return line if line.startswith(name) else f"{name}: {line}"


def open_measurer(
    config: EvaluateConfig, known: Path | None, pairs: Sequence[PicturePair]
) -> Callable[[Sequence[PicturePair]], tuple[list[Measured], Availability]]:
    """In a worker, what measures pairs; with them it returns which metrics could be loaded."""
    use_one_thread()
    measurer = Measurer(config, known, pairs)
    return lambda pairs: (measurer(pairs), measurer.available)


def use_one_thread() -> None:
    """One thread for this process: several processes share the cores already."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with contextlib.suppress(RuntimeError):  # may be set only before the first work
        torch.set_num_interop_threads(1)
