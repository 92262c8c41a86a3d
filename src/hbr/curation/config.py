"""A curation as plain data: what each stage of HQ-ACF measures, and its thresholds."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from hbr.config import check, check_least
from hbr.curation.sources.configs import SourceConfig
from hbr.curation.tagging import ClipTaggerConfig, RamTaggerConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FUNCTION = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


@dataclass(frozen=True)
class DetectorConfig:
    """The detector for images without boxes (`hbr.people.load_detector`).

    Attributes:
        name: a detector's name, or the path of its weights.
        device: cpu, cuda, cuda:1, mps.
        score: detections below this score are dropped; 0 to 1.
        batch: images at a time. Above 1, the last digits of a box may depend on its neighbours in
            the batch, and with them the same bytes for any order of the input.
    """

    name: str
    device: str = "cpu"
    score: float = 0.5
    batch: int = 1

    def __post_init__(self) -> None:
        check(0 <= self.score <= 1, "score", self.score, "0 to 1")
        check_least(self, 1, "batch")


@dataclass(frozen=True)
class BoxesConfig:
    """Stage a: the boxes of people.

    Attributes:
        kinds: which boxes count as a person where a source has several for each, the first kind
            that an image has. Boxes of heads never do.
        score: boxes with a lower score stop; boxes without one pass.
        detector: for images without boxes; None stops them with the reason `unlabelled`.
    """

    kinds: tuple[Literal["full", "visible"], ...] = ("visible", "full")
    score: float = 0.0
    detector: DetectorConfig | None = None

    def __post_init__(self) -> None:
        check(len(self.kinds) > 0, "kinds", self.kinds, "full, visible, or both")
        check(0 <= self.score <= 1, "score", self.score, "0 to 1")


@dataclass(frozen=True)
class SharpnessConfig:
    """Stage b: the variance of the Laplacian of the grey levels (0 to 255).

    Attributes:
        threshold: below it, the row stops.
        ceiling: above it, the row stops, for sets of blurred photos; None sets none.
        region: of the whole image, or of the person's box.
        edge: the region is first shrunk (area-averaged, never enlarged) until its longer edge has
            this many pixels, so that large and small photos are judged alike; 0 does not shrink it.
    """

    threshold: float = 100.0
    region: Literal["image", "box"] = "box"
    edge: int = 512
    ceiling: float | None = None

    def __post_init__(self) -> None:
        check_least(self, 0, "threshold")
        ok = self.ceiling is None or self.ceiling >= self.threshold
        check(ok, "ceiling", self.ceiling, f"{self.threshold:g} (threshold) or more, or null")
        check(self.edge == 0 or self.edge >= 16, "edge", self.edge, "0, or 16 or more")


@dataclass(frozen=True)
class SizeConfig:
    """Stage c: how many pixels a person must have.

    Attributes:
        longer, shorter: least edges of the box, in pixels.
    """

    longer: int = 256
    shorter: int = 0

    def __post_init__(self) -> None:
        check_least(self, 1, "longer")
        check_least(self, 0, "shorter")


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Stages d and e: the square around a person, and its resizing.

    Attributes:
        mode: `person` takes the longer edge of the box as the side; `partial` the shorter edge, at
            the upper end of a standing person and in the middle of a lying one.
        partial: sources that are cropped as in mode `partial`, whatever `mode` says: PERSONA-Test
            is made from VOC that way.
        margin: the side is multiplied by it.
        narrow: what happens where the side does not fit into the image. `shrink`: the side becomes
            the image's shorter edge, and the upper end of a standing person stays. `reject`: the
            row stops. `reflect`, `edge`: the square is centred and padded with mirrored or repeated
            pixels.
        crowd_cover, crowd_people: a person is crowded, and stops, if more than `crowd_people`
            others each cover at least the part `crowd_cover` of the box.
        overlap: of two candidates whose squares have a higher intersection over union, only the one
            whose box is nearer to the image's centre passes; 1 lets all pass.
        edge: side of the finished crop, in pixels; its width where there is a `height`.
        height: of crops as narrow as holds the person (mode `person`), at least `edge`, in pixels.
    """

    mode: Literal["person", "partial"] = "person"
    partial: tuple[str, ...] = ()
    margin: float = 1.0
    narrow: Literal["shrink", "reject", "reflect", "edge"] = "shrink"
    crowd_cover: float = 0.3
    crowd_people: int = 2
    overlap: float = 0.3
    edge: int = 512
    height: int | None = None

    def __post_init__(self) -> None:
        check(0.1 <= self.margin <= 10, "margin", self.margin, "0.1 to 10")
        check(0 < self.crowd_cover <= 1, "crowd_cover", self.crowd_cover, "above 0, up to 1")
        check_least(self, 0, "crowd_people")
        check(0 <= self.overlap <= 1, "overlap", self.overlap, "0 to 1")
        check(16 <= self.edge <= 8192, "edge", self.edge, "16 to 8192")
        if self.height is not None:
            ok = self.edge <= self.height <= 8192 and self.mode == "person" and not self.partial
            expected = f"{self.edge} (edge) to 8192, or null, as crops of mode partial are squares"
            check(ok, "height", self.height, expected)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the finished crop."""
        return self.edge, self.height or self.edge

    @property
    def aspect(self) -> float:
        """Height over width of the crop."""
        return self.size[1] / self.edge

    def down(self, side: int) -> int:
        """The height, in pixels of the photo, of what is cut out `side` pixels wide."""
        return round(self.aspect * side)


@dataclass(frozen=True)
class MetricConfig:
    """One metric of stage f.

    Attributes:
        name: of `hbr.curation.pipeline.stages.measures` (no weights), or any no-reference metric of
            `hbr.metrics`.
        threshold: crops that are worse stop; None sets none.
        ceiling: crops that are better stop, for sets of low quality; None sets none. Where less is
            better (NIQE), these are the crops below it.
    """

    name: str
    threshold: float | None = None
    ceiling: float | None = None

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), "name", self.name, "letters, digits, . _ and -")
        for name in ("threshold", "ceiling"):
            value = getattr(self, name)
            check(value is None or math.isfinite(value), name, value, "a number, or null")


@dataclass(frozen=True, kw_only=True)
class QualityConfig:
    """Stages f and g: metrics of the crop, and Eq. 1 over them.

    Attributes:
        metrics: they run cheapest first, whatever their order here.
        all_scores: every crop gets every score, and Eq. 1 is over the whole set, as in the paper.
            If not, a crop that fails a threshold is skipped by the more expensive metrics, and its
            share of `top` goes to others.
        eq1: the metrics that Eq. 1 is the mean of; None takes all. The others are measured, and
            may have thresholds.
        top: the part of the crops that came to stage f that Eq. 1 keeps; 1 keeps all.
        device: where the metrics run.
        batch: crops at a time. Each batch is filled up to this size, so that a crop's score does
            not depend on how many share its batch.
    """

    metrics: tuple[MetricConfig, ...] = ()
    all_scores: bool = False
    top: float = 1.0
    device: str = "cpu"
    batch: int = 1
    eq1: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics]
        check(len(set(names)) == len(names), "metrics", names, "each named once")
        ok = self.eq1 is None or (len(self.eq1) > 0 and {*self.eq1} <= {*names})
        check(ok, "eq1", self.eq1, f"one or more of metrics ({', '.join(names)}), or null")
        check(0 < self.top <= 1, "top", self.top, "above 0, up to 1")
        check_least(self, 1, "batch")


@dataclass(frozen=True)
class DuplicatesConfig:
    """Stage h: crops that look nearly the same.

    Attributes:
        radius: perceptual hashes (64 bits) that differ in at most this many bits are near; 0 to 15,
            or -1 to look for none.
        across: also between sources; if not, only within each.
    """

    radius: int = 6
    across: bool = True

    def __post_init__(self) -> None:
        check(-1 <= self.radius <= 15, "radius", self.radius, "-1 to 15")


@dataclass(frozen=True)
class SplitsConfig:
    """Stage i: which crops are for training, and which are not.

    Attributes:
        parts: split → its share of the groups; the shares add up to 1.
        fixed: source → the split that all of it goes to. A group with crops of several sources
            follows the fixed one; of several fixed ones, that whose split comes last in `parts`,
            then in `fixed`.
        seed: a different seed gives a different division.
    """

    parts: dict[str, float] = field(default_factory=lambda: {"train": 0.96, "val": 0.04})
    fixed: dict[str, str] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        ok = all(_NAME.fullmatch(name) for name in self.names)
        check(ok, "parts", self.names, "letters, digits, . _ and -")
        shares = list(self.parts.values())
        ok = all(share >= 0 for share in shares) and math.isclose(math.fsum(shares), 1)
        check(ok, "parts", self.parts, "shares from 0 that add up to 1")

    @property
    def names(self) -> list[str]:
        """All splits; one that is in `parts` and `fixed` is listed twice."""
        return [*self.parts, *self.fixed.values()]

    @property
    def held_out(self) -> frozenset[str]:
        """Sources that are fixed to a split which is not in `parts`: those of a test set.

        They are selected by their thresholds alone: they have no part in the means, deviations and
        quota of Eq. 1, and a crop of another source that shares a photo with theirs, or looks
        nearly like one of theirs, is not kept.
        """
        return frozenset(name for name, split in self.fixed.items() if split not in self.parts)


@dataclass(frozen=True, kw_only=True)
class LimitsConfig:
    """The thresholds for the photos of one source, where they differ from the run's.

    Attributes:
        sharpness: of stage b; None takes the run's.
        size: of stage c; None takes the run's.
        metrics: of stage f, instead of all thresholds of the run; each is one of `quality.metrics`.
            None takes the run's.
        count: at most this many crops of the source, drawn at random (`splits.seed`) from those
            that all other stages keep; None takes all.
    """

    sharpness: SharpnessConfig | None = None
    size: SizeConfig | None = None
    metrics: tuple[MetricConfig, ...] | None = None
    count: int | None = None

    def __post_init__(self) -> None:
        names = [metric.name for metric in self.metrics or ()]
        check(len(set(names)) == len(names), "metrics", names, "each named once")
        check(self.count is None or self.count >= 1, "count", self.count, "1 or more, or null")


@dataclass(frozen=True)
class OutputConfig:
    """How the kept crops are written, besides the manifest and the card.

    Attributes:
        kinds: `folder` (a file a crop), `webdataset` (tars), `parquet` (bytes in a table).
        format: of the crops.
        jpeg_quality: 1 to 100; from 90 on, colour is kept at full resolution.
        shard: crops in a tar or a Parquet file.
    """

    kinds: tuple[Literal["folder", "webdataset", "parquet"], ...] = ("folder",)
    format: Literal["png", "jpeg"] = "png"
    jpeg_quality: int = 95
    shard: int = 1000

    def __post_init__(self) -> None:
        check(len(set(self.kinds)) == len(self.kinds), "kinds", self.kinds, "each named once")
        check(1 <= self.jpeg_quality <= 100, "jpeg_quality", self.jpeg_quality, "1 to 100")
        check_least(self, 1, "shard")

    @property
    def suffix(self) -> str:
        """Of a crop's file name."""
        return ".jpg" if self.format == "jpeg" else ".png"


@dataclass(frozen=True, kw_only=True)
class CurationConfig:
    """A whole run, from photos to a data set.

    Attributes:
        name: of the data set.
        sources: where the photos come from.
        boxes: stage a.
        sharpness: stage b.
        size: stage c.
        crop: stages d and e.
        quality: stages f and g.
        duplicates: stage h.
        splits: stage i.
        limits: source → its own thresholds, and how many of its crops are taken.
        tagger: a model, or where to get a `CropTagger`, as `package.module:function`, which is
            called without arguments in each worker. None tags nothing.
        tag_categories: a table for the card: a tag, a tab and its category, a line each.
        output: what is written.
        chunk: images that are worked on, recorded as done and resumed together.
        max_pixels: larger images are refused.
        errors: the run stops once more than this share of the images, at least of the first 1000,
            cannot be used; 0 to 1.
    """

    name: str = "people"
    sources: tuple[SourceConfig, ...] = ()
    boxes: BoxesConfig = field(default_factory=BoxesConfig)
    sharpness: SharpnessConfig = field(default_factory=SharpnessConfig)
    size: SizeConfig = field(default_factory=SizeConfig)
    crop: CropConfig = field(default_factory=CropConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    splits: SplitsConfig = field(default_factory=SplitsConfig)
    limits: dict[str, LimitsConfig] = field(default_factory=dict)
    tagger: str | RamTaggerConfig | ClipTaggerConfig | None = None
    tag_categories: Path | None = None
    output: OutputConfig = field(default_factory=OutputConfig)
    chunk: int = 128
    max_pixels: int = 200_000_000
    errors: float = 0.05

    def __post_init__(self) -> None:
        check(bool(_NAME.fullmatch(self.name)), "name", self.name, "letters, digits, . _ and -")
        ok = not isinstance(self.tagger, str) or bool(_FUNCTION.fullmatch(self.tagger))
        check(ok, "tagger", self.tagger, "package.module:function, or a mapping with a `kind`")
        known = {metric.name for metric in self.quality.metrics}
        for source, own in self.limits.items():
            names = [metric.name for metric in own.metrics or ()]
            check({*names} <= known, f"limits.{source}.metrics", names, "of quality.metrics")
        check_least(self, 1, "chunk", "max_pixels")
        check(0 <= self.errors <= 1, "errors", self.errors, "0 to 1")


def limits_of(config: CurationConfig, source: str) -> LimitsConfig:
    """The thresholds of a source: its own, and the run's where it has none."""
    own = config.limits.get(source, LimitsConfig())
    return LimitsConfig(
        sharpness=own.sharpness or config.sharpness,
        size=own.size or config.size,
        metrics=config.quality.metrics if own.metrics is None else own.metrics,
        count=own.count,
    )
