"""The configuration of training and validation photos."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hbr.config import ConfigError, check, check_least
from hbr.degradation import find_recipe
from hbr.people.grids import GridName


@dataclass(frozen=True, kw_only=True)
class PhotoSourceConfig:
    """A source of photos to draw crops from: exactly one of `photos`, `manifest` and `tars`.

    Relative paths are relative to the working directory.

    Attributes:
        photos: a folder.
        manifest: a data set of `hbr curate`: its folder or its manifest file.
        split: the split of the manifest.
        tars: a glob of WebDataset tars, such as `data/train-*.tar`; they are not unpacked.
        weight: sampling weight relative to the other sources.
        boxes: a COCO file with person boxes for `photos`; crops are then placed on a person.
        boxes_grid: on which grid of pixels the boxes count in photos that EXIF turns, where the
            size that the file states for the image does not tell: stored or upright.
        exclude: names of files in `photos` to exclude.
    """

    photos: Path | None = None
    weight: float = 1.0
    boxes: Path | None = None
    boxes_grid: GridName = "stored"
    exclude: tuple[str, ...] = ()
    manifest: Path | None = None
    split: str = "train"
    tars: str | None = None

    def __post_init__(self) -> None:
        _check_one_place(self)
        check(self.weight > 0, "weight", self.weight, "above 0")
        for name in ("boxes", "exclude"):
            got = getattr(self, name)
            check(not got or self.photos is not None, name, got, "left out without `photos`")


@dataclass(frozen=True, kw_only=True)
class ConditionsConfig:
    """The maps and texts that guide a model besides the LQ image.

    Attributes:
        source: where the key points of people come from: "people" are the annotated ones of the
            photos (`boxes` or `manifest` with key points); "hq" and "lq" are found in the HQ or in
            the LQ crop, by `detector` and `pose`.
        detector: finds people, as `hbr curate` takes it.
        pose: an ONNX file of RTMPose or DWPose, or a name of `hbr models list`.
        cache: folder in which found key points are kept by the content of the crop; None keeps
            none.
        captions: JSON lines of {"photo": NAME, "text": TEXT}; photos without one have no text.
    """

    source: Literal["people", "hq", "lq"] = "people"
    detector: str = "rtdetr"
    pose: str = "dwpose"
    cache: Path | None = None
    captions: Path | None = None


@dataclass(frozen=True, kw_only=True)
class LatentsConfig:
    """Latents of HQ crops, encoded once and kept on disk; crops then come from a fixed set.

    Crops that are drawn anew in every step would hardly ever meet a latent that was kept.

    Attributes:
        cache: folder of the latents. They are named by the content of the crop and by the
            encoder, so that several trainings may share a folder.
        crops: number of crops of each photo; size, place and mirroring of each are drawn once.
            Degradations are drawn anew in every step.
    """

    cache: Path
    crops: int = 8

    def __post_init__(self) -> None:
        check_least(self, 1, "crops")


_HQ_IS_USED = "with `latents`, and with `conditions` of hq"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The training pairs.

    Attributes:
        sources: the sources of photos.
        degradations: name or YAML file of a degradation recipe → sampling weight.
        shrink_prob, shrink: probability of downscaling the HQ photo first, and the range of
            factors; this hides the compression artifacts of the photo.
        sharpen: (σ in pixels, amount) of an unsharp mask of the targets, as Real-ESRGAN trains:
            photos of the web are soft, and so are models that learn to return them. LQ is made of
            what the photo is.
        crisp_prob, crisp: probability of sharpening a photo that was downscaled, before it is
            degraded, as web sites do with the small copies that they make, and the range of
            amounts; `sharpen` leaves these as they are. A model that never saw crisp photos
            softens them.
        mirror: whether to flip crops horizontally with probability 0.5.
        margin: number of pixels by which the degraded square is larger than the crop; a multiple
            of 16, so that it is a whole number of JPEG blocks at every `scale` that divides it.
        shift_prob: probability of taking the crop at a random position in that square, so that
            JPEG and resizing grids are not aligned with the model's patches; otherwise the crop is
            the top left corner.
        errors: the largest fraction of unreadable photos; the training stops if there are more.
            An unreadable photo is replaced by the next one; one is always allowed.
        workers: number of processes that prepare pairs.
        kept_gb: GB of decoded photos that each of the `workers` keeps in memory, so that a GPU
            waits less for sets of photos that are small.
        conditions: maps and texts for models that are guided by them.
        latents: keeps the latents of HQ crops; None encodes them in every step.
        device: where crops are degraded: "cpu" in the `workers`; "auto" on the GPU that trains,
            which computes the same up to rounding, and in the workers if there is none.
    """

    sources: tuple[PhotoSourceConfig, ...]
    degradations: dict[str, float] = field(default_factory=lambda: {"real-esrgan": 1.0})
    shrink_prob: float = 0.3
    shrink: tuple[float, float] = (0.6, 1.0)
    sharpen: tuple[float, float] | None = None
    crisp_prob: float = 0.0
    crisp: tuple[float, float] = (0.2, 1.6)
    mirror: bool = True
    margin: int = 0
    shift_prob: float = 0.25
    errors: float = 0.01
    workers: int = 1
    kept_gb: float = 0.0
    conditions: ConditionsConfig | None = None
    latents: LatentsConfig | None = None
    device: Literal["cpu", "auto"] = "cpu"

    def __post_init__(self) -> None:
        check(len(self.sources) >= 1, "sources", self.sources, "one source or more")
        for name, weight in self.degradations.items():
            _check_recipe("degradations", name)
            check(weight >= 0, f"degradations.{name}", weight, "0 or more")
        ok = sum(self.degradations.values()) > 0
        check(ok, "degradations", self.degradations, "weights that are not all 0")
        check(0 <= self.shrink_prob <= 1, "shrink_prob", self.shrink_prob, "in [0, 1]")
        low, high = self.shrink
        check(0 < low <= high <= 1, "shrink", self.shrink, "two factors in (0, 1]")
        if self.sharpen is not None:
            ok = 0 < self.sharpen[0] <= 3 and 0 < self.sharpen[1] < math.inf
            check(ok, "sharpen", self.sharpen, "σ in (0, 3] and an amount above 0, or null")
            check(self._hq_may_change, "sharpen", self.sharpen, f"null {_HQ_IS_USED}")
        check(0 <= self.crisp_prob <= 1, "crisp_prob", self.crisp_prob, "in [0, 1]")
        ok = self.crisp_prob == 0 or self._hq_may_change
        check(ok, "crisp_prob", self.crisp_prob, f"0 {_HQ_IS_USED}")
        low, high = self.crisp
        check(0 < low <= high < math.inf, "crisp", self.crisp, "two amounts above 0")
        ok = self.margin >= 0 and self.margin % 16 == 0
        check(ok, "margin", self.margin, "a multiple of 16, or 0")
        check(0 <= self.shift_prob <= 1, "shift_prob", self.shift_prob, "in [0, 1]")
        check(0 <= self.errors < 1, "errors", self.errors, "in [0, 1)")
        check_least(self, 0, "workers")
        check(0 <= self.kept_gb < math.inf, "kept_gb", self.kept_gb, "0 or more")
        from_lq = self.conditions is not None and self.conditions.source == "lq"
        ok = self.device == "cpu" or not from_lq
        check(ok, "device", self.device, "cpu, as `conditions` are found in the LQ crops")

    @property
    def _hq_may_change(self) -> bool:
        """Whether nothing is made of the HQ crops as they are read, so that they may change."""
        return self.latents is None and (self.conditions is None or self.conditions.source != "hq")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """The validation photos, which are degraded the same way every time.

    Attributes:
        photos, manifest, split, tars: their location, as in `PhotoSourceConfig`.
        count: number of photos to use, the first by name.
        crop: size of the centre crop, in pixels.
        recipe: name or YAML file of the degradation recipe.
        seed: random seed of the degradations.
        every: number of steps between validations.
        pictures: number of photos in the picture (LQ, restored, HQ side by side).
        boxes: a COCO file with the people of `photos`, for `data.conditions`.
        boxes_grid: their grid of pixels, as in `PhotoSourceConfig`.
    """

    photos: Path | None = None
    count: int = 100
    crop: int = 512
    recipe: str = "real-esrgan"
    seed: int = 0
    every: int = 500
    pictures: int = 4
    manifest: Path | None = None
    split: str = "val"
    tars: str | None = None
    boxes: Path | None = None
    boxes_grid: GridName = "stored"

    def __post_init__(self) -> None:
        _check_one_place(self)
        ok = self.boxes is None or self.photos is not None
        check(ok, "boxes", self.boxes, "left out without `photos`")
        _check_recipe("recipe", self.recipe)
        check_least(self, 1, "count", "crop", "every")
        check_least(self, 0, "pictures", "seed")


def _check_recipe(name: str, recipe: str) -> None:
    try:
        find_recipe(recipe)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None


def _check_one_place(config: PhotoSourceConfig | ValidationConfig) -> None:
    given = [n for n in ("photos", "manifest", "tars") if getattr(config, n) is not None]
    check(bool(given), "photos", None, "given, or else `manifest` or `tars`")
    for name in given[1:]:
        check(False, name, str(getattr(config, name)), f"left out if `{given[0]}` is given")
