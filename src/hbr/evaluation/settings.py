"""What an evaluation computes, and how, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from hbr.config import check, check_least
from hbr.metrics import MetricInfo, find_metric
from hbr.people.grids import GridName
from hbr.processes import cores

SizePolicy = Literal["error", "skip", "resize"]


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is computed, and how.

    Attributes:
        metrics: ids or aliases (`hbr.metrics.METRICS`), each once.
        size: what is done with a restored picture of another size than its reference: the pair
            fails ("error"), is left out ("skip"), or the picture is resized ("resize", antialiased
            bicubic).
        resamples: of the bootstrap; 0 gives no intervals.
        seed: of the bootstrap.
        workers: processes of one thread each; None takes as many as there are cores, or one on a
            GPU; 0 works in this process.
        batch: pictures that are read, and given to a metric, at once; None takes one, or eight on
            a GPU.
        device: where networks run: "cpu", "cuda", "cuda:N".
        weights: folder of weights; None searches hbr's default locations.
        people: COCO file with the people in the references, for the metrics of people.
        pose: ONNX file that finds key points (RTMPose, DWPose) in restored pictures, for the metric
            that compares them.
        crop_border: pixels that are cut off each edge of both pictures before they are compared.
        people_grid: on which grid of pixels people are annotated in references that EXIF turns,
            where the annotated size does not tell.
    """

    metrics: tuple[str, ...]
    size: SizePolicy = "error"
    resamples: int = 1000
    seed: int = 0
    workers: int | None = None
    batch: int | None = None
    device: str = "cpu"
    weights: Path | None = None
    people: Path | None = None
    pose: Path | None = None
    crop_border: int = 0
    people_grid: GridName = "stored"

    def __post_init__(self) -> None:
        """Check every field; the names of metrics are looked up."""
        ids = self.ids
        check(len(ids) > 0, "metrics", self.metrics, "one or more")
        twice = sorted({name for name in ids if ids.count(name) > 1})
        check(not twice, "metrics", ", ".join(twice), "each metric once")
        check_least(self, 0, "resamples", "seed")
        check(self.workers is None or self.workers >= 0, "workers", self.workers, "0 or more")
        check(self.batch is None or self.batch >= 1, "batch", self.batch, "1 or more")
        check_least(self, 0, "crop_border")
        check(self.size in get_args(SizePolicy), "size", self.size, "error, skip or resize")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the metrics, in order."""
        return tuple(find_metric(name).id for name in self.metrics)

    @property
    def infos(self) -> dict[str, MetricInfo]:
        """Id → row of the table of metrics."""
        return {name: find_metric(name) for name in self.ids}

    @property
    def at_once(self) -> int:
        """How many pictures go through together."""
        if self.batch is not None:
            return self.batch
        return 1 if self.device == "cpu" else 8

    @property
    def processes(self) -> int:
        """How many workers there are."""
        if self.workers is not None:
            return self.workers
        return cores() if self.device == "cpu" else 1
