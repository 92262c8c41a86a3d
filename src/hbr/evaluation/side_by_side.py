"""Photos through several models, side by side on one page that needs no network.

One model is in memory at a time. Each restores the whole photo; of the results only numbers and
the pictures for the page are kept.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from hbr.config import ConfigError
from hbr.errors import display_name, one_line
from hbr.evaluation.pairing import PairingError, StemRules, find_pictures
from hbr.image import Photo, read_photo
from hbr.image.pixels import resize
from hbr.metrics import Metric, MetricError, MetricInfo, load_metric
from hbr.pages import data_uri
from hbr.restoration.batch.finding import InputPhoto
from hbr.restoration.batch.records import describe_failure
from hbr.restoration.settings import RestoreSettings
from hbr.weights import WeightsError

if TYPE_CHECKING:
    from hbr.restoration.restorer import Restorer

EDGE = 1024
"""Of a larger photo the page shows the middle, this many pixels wide and high, at full size."""

BUDGET = 24_000_000
"""Bytes of pictures in a page; further photos are in it with their numbers only."""

INPUT = "input"
_METRICS = ("psnr-y", "ssim-y", "lpips-alex")
_QUALITY = 90


@dataclass(frozen=True)
class Entrant:
    """A model of the comparison.

    Attributes:
        label: unique, for people.
        model: a known name, or a file.
        fidelity: of a model with two ends; None is its default.
    """

    label: str
    model: str
    fidelity: float | None = None


@dataclass(frozen=True)
class ComparedPhoto:
    """A photo of the comparison.

    Attributes:
        name: unique, for people.
        file: what the models restore.
        reference: what the result should look like, if that is known.
    """

    name: str
    file: Path
    reference: Path | None = None


@dataclass(kw_only=True)
class SideBySide:
    """What a comparison found; it is filled model by model.

    Attributes:
        photos: those that could be read.
        columns: the input, then each model that could be loaded: label → how it ran.
        values: (photo, label) → "seconds" and metric ids → number; there is none where a model
            failed.
        pictures: photo → label → `data:` address, with the reference under "reference".
        sizes: photo → (width, height) of the result.
        shown: photo → (width, height) of its pictures in the page.
        metrics: those that were measured.
        problems: one line for each photo, model and reference that failed.
        out_of_memory, weights_missing: whether that was among the reasons.
    """

    photos: list[ComparedPhoto] = field(default_factory=list)
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)
    pictures: dict[str, dict[str, str]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    shown: dict[str, tuple[int, int]] = field(default_factory=dict)
    metrics: dict[str, MetricInfo] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    out_of_memory: bool = False
    weights_missing: bool = False

    @property
    def restored(self) -> int:
        """How many times a model restored a photo."""
        return sum(label != INPUT for _, label in self.values)


Say = Callable[[str, str], None]
"""Takes a level, as "error", and a line."""


def name_models(models: Sequence[str], fidelities: Sequence[float] = ()) -> list[Entrant]:
    """The models of a comparison, each with a label of its own.

    Args:
        models: names and files; one that is named twice takes part once.
        fidelities: a model with two ends takes part once for each of these.

    Raises:
        ConfigError: no models, or fidelities but no model with two ends.
    """
    given = list(dict.fromkeys(model.strip() for model in models if model.strip()))
    if not given:
        raise ConfigError("models is empty; it must be names or files with commas between")
    files = {model: Path(model).stem for model in given if Path(model).suffix}
    short = [files.get(model, model) for model in given]
    labels = [a if short.count(a) == 1 else b for a, b in zip(short, given, strict=True)]
    two_ended = {model for model in given if fidelities and _has_two_ends(model)}
    if fidelities and not two_ended:
        raise ConfigError("fidelity is for models with two ends, and none of these has them")
    found = []
    for label, model in zip(map(display_name, labels), given, strict=True):
        if model in two_ended:
            found += [Entrant(f"{label}, fidelity {f:g}", model, f) for f in fidelities]
        else:
            found.append(Entrant(label, model))
    return found


def _has_two_ends(model: str) -> bool:
    from hbr.models.files import is_of_hbr, read_header
    from hbr.weights import find_model

    try:
        file = find_model(model)
        return is_of_hbr(file) and read_header(file).fidelity is not None
    except WeightsError:
        return False  # loading it will say so


def name_photos(
    found: Sequence[InputPhoto], reference: Path | None, *, recursive: bool = False
) -> list[ComparedPhoto]:
    """The photos of a comparison, each once, with a name of its own and its reference.

    Args:
        found: photos and where they lie below their inputs.
        reference: a folder or file of references, which belong to the photos of the same stem; a
            file is that of a single photo whatever its name.
        recursive: take the references in sub-folders too.

    Raises:
        PairingError: the reference is not there, or belongs to no photo.
    """
    places: dict[str, InputPhoto] = {}
    for item in found:
        places.setdefault(os.path.realpath(item[0]), item)
    once = list(places.values())
    names = [str(place) for _, place in once]
    unique = [n if names.count(n) == 1 else str(f) for n, (f, _) in zip(names, once, strict=True)]
    stems = [StemRules().stem(name) for name in names]
    references = _references(reference, stems, recursive) if reference is not None else {}
    return [
        ComparedPhoto(display_name(name), file, references.get(stem))
        for name, stem, (file, _) in zip(unique, stems, once, strict=True)
    ]


def _references(reference: Path, stems: Sequence[str], recursive: bool) -> Mapping[str, Path]:
    if reference.is_file():
        if len(stems) == 1:
            return {stems[0]: reference}
        found = {StemRules().stem(reference.name): reference}
    else:
        found = find_pictures(reference, recursive=recursive)
    if stems and not found.keys() & set(stems):
        raise PairingError(
            f"{display_name(reference)}: no reference has the stem of a photo "
            f"({stems[0]} against {min(found)})"
        )
    return found


def compare(
    photos: Sequence[ComparedPhoto],
    entrants: Sequence[Entrant],
    settings: RestoreSettings,
    *,
    device: str = "auto",
    say: Say,
    progress: Callable[[int, int], None],
    budget: int = BUDGET,
) -> SideBySide:
    """Restore every photo with every model; a bad one of either does not stop the others.

    Args:
        photos: of `name_photos`.
        entrants: of `name_models`.
        settings: the same for all models.
        device: where they run; the metrics run on the CPU.
        say: is told of each problem when it shows.
        progress: called with the number of photos that are done, of all models, and their total.
        budget: see `BUDGET`; the first photo is shown in any case.
    """
    found = SideBySide()
    total = len(photos) * (1 + len(entrants))
    metrics = _load_metrics(say) if any(p.reference for p in photos) else []
    at_work = _Comparing(found, settings, metrics, say)
    for done, photo in enumerate(photos, 1):
        at_work.look_at(photo)
        _keep_within(found, budget)
        progress(done, total)
    for number_, entrant in enumerate(entrants, 1):
        if not found.photos:
            break
        for done in at_work.enter(entrant, device):
            _keep_within(found, budget)
            progress(number_ * len(photos) + done, total)
    return found


@dataclass(frozen=True)
class _Comparing:
    """A comparison at work, and what it has found so far."""

    found: SideBySide
    settings: RestoreSettings
    metrics: Sequence[Metric]
    say: Say

    def look_at(self, photo: ComparedPhoto) -> None:
        """Read a photo and its reference; the input is compared at the size of the result."""
        found, settings = self.found, self.settings
        try:
            given = _enlarged(read_photo(photo.file, max_pixels=settings.max_pixels), settings)
        except Exception as error:
            self._fail(error, photo.file)
            return
        height, width = given.size
        found.sizes[photo.name] = (width, height)
        found.shown[photo.name] = (min(EDGE, width), min(EDGE, height))
        found.columns.setdefault(INPUT, {})
        pictures = found.pictures[photo.name] = {INPUT: _picture(given)}
        if photo.reference is not None:
            try:
                pictures["reference"] = _picture(_reference(photo.reference, given, settings))
            except Exception as error:
                self._fail(error, photo.reference)
                photo = replace(photo, reference=None)
        found.photos.append(photo)
        found.values[photo.name, INPUT] = self._measure(photo, given)

    def enter(self, entrant: Entrant, device: str) -> Iterator[int]:
        """Restore all photos with one model; gives the number of those that are done."""
        from hbr.restoration import Restorer

        found, name = self.found, entrant.model
        try:
            restorer = Restorer.from_pretrained(name, device=device, fidelity=entrant.fidelity)
        except WeightsError as error:
            found.weights_missing = True
            self._tell(one_line(error))
            yield len(found.photos)
            return
        except Exception as error:
            self._fail(error, Path(name))
            yield len(found.photos)
            return
        found.columns[entrant.label] = _about(restorer)
        for done, photo in enumerate(found.photos, 1):
            try:
                restored = restorer(photo.file, self.settings)
                values = self._measure(photo, restored.photo)
            except Exception as error:
                self._fail(error, photo.file, f"{entrant.label}: ")
            else:
                seconds = {"seconds": restored.timings["total"] - restored.timings["read"]}
                found.values[photo.name, entrant.label] = seconds | values
                if photo.name in found.pictures:
                    found.pictures[photo.name][entrant.label] = _picture(restored.photo)
            yield done

    def _measure(self, photo: ComparedPhoto, result: Photo) -> dict[str, float]:
        """Metric → value. What a metric cannot be computed on, as a small photo, is said once."""
        if photo.reference is None:
            return {}
        reference = _reference(photo.reference, result, self.settings)
        values = {}
        for metric in self.metrics:
            try:
                value = metric(result.displayed().tensor(), reference.displayed().tensor()).item()
            except MetricError as error:
                if (photo.name, INPUT) not in self.found.values:
                    self.say("warning", f"{photo.name}: {one_line(error)}")
                continue
            if math.isfinite(value):  # the PSNR of two pictures that are the same is not
                values[metric.info.id] = value
                self.found.metrics[metric.info.id] = metric.info
        return values

    def _fail(self, error: Exception, file: Path, label: str = "") -> None:
        line, short = describe_failure(error, file)
        self.found.out_of_memory |= short
        self._tell(label + line)

    def _tell(self, line: str) -> None:
        self.found.problems.append(line)
        self.say("error", line)


def _load_metrics(say: Say) -> list[Metric]:
    loaded = []
    for name in _METRICS:
        try:
            loaded.append(load_metric(name))
        except MetricError as error:
            say("warning", f"{name} is left out: {one_line(error)}")
    return loaded


def _enlarged(photo: Photo, settings: RestoreSettings) -> Photo:
    from hbr.restoration.pixels.inputs import resized_pixels

    pixels = resized_pixels(photo, settings)
    if pixels is photo.pixels:
        return photo
    alpha = None if photo.alpha is None else resize(photo.alpha, *pixels.shape[:2])
    return Photo(pixels=pixels, alpha=alpha, mode=photo.mode)


def _reference(file: Path, result: Photo, settings: RestoreSettings) -> Photo:
    reference = read_photo(file, max_pixels=settings.max_pixels)
    (h, w), (height, width) = result.size, reference.size
    if (h, w) != (height, width):
        raise ValueError(
            f"the reference has {width}×{height} pixels, the result {w}×{h}; choose another --scale"
        )
    return reference


def _about(restorer: Restorer) -> dict[str, Any]:
    fidelity = {} if restorer.fidelity is None else {"fidelity": restorer.fidelity}
    return {
        "SHA-256": restorer.sha256,
        **fidelity,
        "device": str(restorer.device),
        "precision": restorer.dtype,
    }


def _picture(photo: Photo) -> str:
    """What the page shows of a photo: all of it, or the middle."""
    picture = photo.displayed().pil()
    width, height = min(EDGE, picture.width), min(EDGE, picture.height)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    middle: Image.Image = picture.crop((left, top, left + width, top + height))
    return data_uri(middle, edge=EDGE, quality=_QUALITY)


def _keep_within(found: SideBySide, budget: int) -> None:
    """Drop the pictures of the last photos until the others fit into the page."""
    sizes = {name: sum(map(len, uris.values())) for name, uris in found.pictures.items()}
    spent = sum(sizes.values())
    for name in reversed(list(sizes)[1:]):
        if spent <= budget:
            return
        spent -= sizes[name]
        del found.pictures[name]
