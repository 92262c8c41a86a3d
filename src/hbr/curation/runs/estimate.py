"""Estimates what a run would do, what is missing, and how long it takes, from a sample."""

from __future__ import annotations

import dataclasses
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hbr.curation.config import CurationConfig, QualityConfig
from hbr.curation.pipeline.chunk import Chunk, ChunkWorker, Task
from hbr.curation.pipeline.loading import load_available
from hbr.curation.pipeline.stages.quality import cheapest_first, cost_of
from hbr.curation.pipeline.store import Store
from hbr.curation.record import Counts
from hbr.curation.sources.base import Source, SourceError, SourceImage
from hbr.curation.sources.opening import open_source, with_names
from hbr.errors import one_line

WHOLE_SET_MS = 0.2
"""CPU milliseconds of a row in the passes over the whole set, the manifest and the outputs, as
benchmarks/curation_cluster.py measures them."""
_SECONDS = 10.0  # longest time to count the images of one source
_UNKNOWN_MS = 1000.0  # of a metric whose cost is not known


@dataclass(frozen=True, kw_only=True)
class SourceEstimate:
    """One source of a run.

    Attributes:
        name, kind: of the source.
        place: where it lies.
        images: how many were counted; None if it is not there.
        whole: all were counted, not only those that could be in a few seconds.
        labelled: share of the counted images that have boxes.
        problem: why it cannot be read.
    """

    name: str
    kind: str
    place: str
    images: int | None = None
    whole: bool = True
    labelled: float = 0.0
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class StageEstimate:
    """One step of the work.

    Attributes:
        name: as in the costs of a run: `read`, `detect`, `sharpness`, …, a metric, `write`.
        per_image: how many things it gets for each image.
        ms: CPU milliseconds for each; of this machine.
        measured: on this machine; if not, `ms` is from `quality.COSTS`, or a guess.
        missing: why it cannot run, and the command that gets what it needs.
    """

    name: str
    per_image: float
    ms: float
    measured: bool
    missing: str | None = None

    @property
    def ms_per_image(self) -> float:
        """CPU milliseconds for each image of the sources."""
        return self.per_image * self.ms


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """What a run would do.

    Attributes:
        config: the run.
        sources: where its images come from.
        stages: in the order of the work.
        sample: images that were tried.
        crops: of the sample, that came to stage f.
        passed: of the sample, that passed the metrics that could be run.
    """

    config: CurationConfig
    sources: tuple[SourceEstimate, ...]
    stages: tuple[StageEstimate, ...]
    sample: int
    crops: int
    passed: int

    @property
    def images(self) -> int:
        """How many were counted."""
        return sum(source.images or 0 for source in self.sources)

    @property
    def missing(self) -> list[str]:
        """What must be done before it can run."""
        lacks = [s.problem for s in self.sources if s.problem]
        for stage in self.stages:
            if stage.missing is not None:
                named = stage.missing.startswith(stage.name)
                lacks.append(stage.missing if named else f"{stage.name}: {stage.missing}")
        return lacks

    def hours(self, images: int, workers: int) -> float:
        """Estimated hours for `images` on `workers` processes."""
        shared = sum(stage.ms_per_image for stage in self.stages) * images / workers
        rows = max(1.0, self.crops / max(self.sample, 1)) * images
        return (shared + rows * WHOLE_SET_MS) / 3.6e6


def estimate_run(
    config: CurationConfig, *, sample: int = 32, tell: Callable[[str], None] = lambda _: None
) -> RunEstimate:
    """Look at the sources and try a sample of them, in this process.

    Args:
        config: the run.
        sample: images to try, drawn evenly from those that are counted.
        tell: called with a line for each step.

    Raises:
        SourceError: two sources have the same given name, or are the same.
    """
    plans, drawn = [], []
    for source_config in with_names(config.sources):
        try:
            source = open_source(source_config)
        except SourceError as error:
            kind, place = source_config.kind, str(error).partition(":")[0]
            plans.append(
                SourceEstimate(name=source_config.name, kind=kind, place=place, problem=str(error))
            )
            continue
        tell(f"counting {source.name}")
        plan, images = _look_at(source, source_config.kind, sample)
        plans.append(plan)
        drawn.append((plan.images or 0, images))
    tried = _share_out(drawn, sample)
    tell(f"trying {len(tried)} images")
    costs, counts, lacks = _try(config, tried)
    n = max(len(tried), 1)
    crops = sum(c for (stage, _), c in counts.items() if stage == "quality")
    passed = counts["quality", None]
    stages = [
        StageEstimate(
            name=name, per_image=things / n, ms=1e3 * spent / max(things, 1), measured=True
        )
        for name, (things, spent) in costs.items()
        if name not in lacks
    ]
    labelled = sum(s.labelled * (s.images or 0) for s in plans)
    bare = 1 - labelled / total if (total := sum(s.images or 0 for s in plans)) else 1.0
    for name, why in lacks.items():
        # where no crop came that far, assume one for each image
        reach = bare if name == "detect" else (passed / n if crops else 1.0)
        ms = cost_of(name) or _UNKNOWN_MS
        stages.append(StageEstimate(name=name, per_image=reach, ms=ms, measured=False, missing=why))
    return RunEstimate(
        config=config,
        sources=tuple(plans),
        stages=_in_order(stages, config),
        sample=len(tried),
        crops=crops,
        passed=passed,
    )


def _in_order(stages: list[StageEstimate], config: CurationConfig) -> tuple[StageEstimate, ...]:
    order = ["read", "detect", "sharpness", "crop", "resize"]
    order += [metric.name for metric in cheapest_first(config.quality.metrics)]
    order += ["phash", "tags", "encode", "write"]
    stages.sort(key=lambda stage: order.index(stage.name) if stage.name in order else len(order))
    return tuple(stages)


def _look_at(source: Source, kind: str, sample: int) -> tuple[SourceEstimate, list[SourceImage]]:
    """Count images for some seconds, and draw some of them, each equally likely."""
    rng, drawn, n, labelled = random.Random(0), list[SourceImage](), 0, 0
    place, problem, whole = "", None, True
    end = time.monotonic() + _SECONDS
    try:
        for image in source:
            n += 1
            labelled += image.boxes is not None
            place = place or (image.ref.path if image.ref else "")
            if len(drawn) < sample:
                drawn.append(image)
            elif (at := rng.randrange(n)) < sample:
                drawn[at] = image
            if n % 64 == 0 and time.monotonic() > end:
                whole = False
                break
    except SourceError as error:
        problem = str(error)
    folder = str(Path(place).parent) if place else ""
    return SourceEstimate(
        name=source.name,
        kind=kind,
        place=folder,
        images=n,
        whole=whole,
        labelled=labelled / max(n, 1),
        problem=problem,
    ), drawn


def _share_out(drawn: Sequence[tuple[int, list[SourceImage]]], sample: int) -> list[SourceImage]:
    """Each source in proportion to its images, at least one of each."""
    total = max(sum(n for n, _ in drawn), 1)
    return [image for n, images in drawn for image in images[: max(1, round(sample * n / total))]]


def _try(
    config: CurationConfig, images: Sequence[SourceImage]
) -> tuple[dict[str, tuple[int, float]], Counts, dict[str, str]]:
    """What a chunk of these costs and comes to, and what cannot run here, with the reason.

    It runs once before, so that one-time work is not measured.
    """
    models = load_available(config)
    lacks = {name: _why(name, error) for name, error in models.missing.items()}
    if not images:
        return {}, Counter(), lacks
    there = tuple(metric for metric in config.quality.metrics if metric.name not in lacks)
    stored = dataclasses.replace(config, quality=QualityConfig(metrics=there), limits={})
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder), stored)
        store.create()
        worker = ChunkWorker(config, store, models)
        tasks = [Task.of(image) for image in images]
        worker(Chunk.of(tasks[:2]))
        done = worker(Chunk.of(tasks))
    return done.costs, done.counts, lacks


def _why(name: str, error: Exception) -> str:
    text = one_line(error)
    # transformers, without a network
    if name == "detect" and ("cached files" in text or "offline" in text.lower()):
        model = text.partition(":")[0]
        return f"{model} is not on this machine; `hf download {model}` gets it, or the run's start"
    return text


def lines(plan: RunEstimate, images: int | None, workers: int) -> Iterator[str]:
    """The plan as lines of text.

    `images` None takes those that were counted.
    """
    for s in plan.sources:
        if s.images is None:
            yield f"source {s.name}: {s.problem}"
            continue
        more = "" if s.whole else " or more"
        yield f"source {s.name} ({s.kind}): {s.images:,} images{more}, {s.labelled:.0%} with boxes"
    n = plan.images if images is None else images
    bare = sum(round((1 - s.labelled) * (s.images or 0)) for s in plan.sources)
    if bare and plan.config.boxes.detector is None:
        yield f"{bare:,} images have no boxes and stop there: --detector rtdetr finds the people"
    yield f"tried {plan.sample}: {plan.crops} crops, {plan.passed} pass the metrics that can run"
    yield f"{'stage':<12}{'per image':>10}{'ms each':>10}{'hours':>10}"
    for stage in plan.stages:
        hours = stage.ms_per_image * n / workers / 3.6e6
        mark = "" if stage.measured else "  assumed: it cannot run here"
        yield f"{stage.name:<12}{stage.per_image:>10.2f}{stage.ms:>10.2f}{hours:>10.3f}{mark}"
    if not plan.crops:
        yield "no crop came through: metrics that cannot run count as one crop for each image"
    if n:
        yield f"{n:,} images on {workers} processes: about {_span(plan.hours(n, workers))}"
    for lack in plan.missing:
        yield f"missing: {lack}"


def _span(hours: float) -> str:
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} seconds"
    if hours < 2:
        return f"{hours * 60:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 72 else f"{hours / 24:.1f} days"
