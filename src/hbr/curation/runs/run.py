"""A whole curation: sources → chunks → parts → passes over the set → manifest and data set."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbr.config import check
from hbr.curation.config import CurationConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.engines.ray import RayEngine
from hbr.curation.manifest import NAME as MANIFEST
from hbr.curation.manifest import Manifest
from hbr.curation.pipeline import passes
from hbr.curation.pipeline.chunk import Task
from hbr.curation.pipeline.plan import write_plan
from hbr.curation.pipeline.stages.quality import better
from hbr.curation.pipeline.store import (
    Store,
    TaskSet,
    add_costs,
    per_image_settings,
    plain,
    run_lock,
)
from hbr.curation.record import PASSING, Counts, CurationError, content_id
from hbr.curation.runs import outputs
from hbr.curation.runs.card import card
from hbr.curation.runs.choices import kept_review
from hbr.curation.runs.summary import RunSummary, summarize
from hbr.curation.sources.base import Source
from hbr.curation.sources.opening import open_sources, test_only_names
from hbr.curation.tagging import read_categories
from hbr.files import write_text

_FIRST = 1000  # images before which the share of errors is not judged
_EVERY = 1000  # images of the plan between two reports


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """The progress of a run.

    Attributes:
        doing: `plan` (reading the sources), `crops`, `set` (the passes over the whole set),
            `manifest`, or a kind of output.
        done: images, rows or crops of it.
        total: how many there will be; None where it is not known yet.
        images: images that this run has worked on.
        earlier: images that an earlier run had done.
        errors: images that could not be used.
        counts: (stage, reason) → rows of this run so far.
    """

    doing: str
    done: int
    total: int | None = None
    images: int = 0
    earlier: int = 0
    errors: int = 0
    counts: Counts = field(default_factory=Counter)


def curate(
    config: CurationConfig,
    out: str | Path,
    *,
    engine: LocalEngine | RayEngine | None = None,
    report: Callable[[RunProgress], None] = lambda _: None,
    sources: Sequence[Source] | None = None,
) -> RunSummary:
    """Run a curation, or resume one that stopped.

    The folder holds, at the end, `manifest.parquet`, `summary.json`, `README.md` (the card) and the
    outputs that the configuration names; their bytes depend on the photos and the settings alone.
    `work` beside them holds what makes the run resumable, and the rejected crops. What is done is
    not repeated, except for images that could not be used: each run tries those again.

    `engine` is by default a process for each core of this machine; `sources` replace those of the
    config.

    Raises:
        ConfigError, SourceError, MetricError: something cannot be set up.
        CurationError: too many errors, a lost worker, or another run in the folder.
        OSError: no space, no permission.
        KeyboardInterrupt: what is done is kept.
    """
    out, config = Path(out), hold_out(config)
    categories = read_categories(config.tag_categories) if config.tag_categories else {}
    photos = list(sources) if sources is not None else list(open_sources(config.sources))
    _check_names(photos)
    for metric in config.quality.metrics:
        better(metric.name)  # one that is not known shows before anything is done
    engine = engine or LocalEngine()
    with run_lock(out):
        store = Store(out, config)
        store.create()
        if not store.parts():
            engine.check(config)
        store.forget(PASSING)
        walk = _Walk(config, store, photos, report)
        costs = walk.work(engine, out)
        report(walk.progress("set", 0))
        crops = passes.gather(store, walk.seen)
        decisions = passes.decide(crops, config, kept_review(out).left_out)
        totals = passes.write_manifest(
            store,
            walk.seen,
            decisions,
            out / MANIFEST,
            about(config),
            lambda n: report(walk.progress("manifest", n)),
            config.splits.held_out,
        )
        summary = summarize(config.name, totals, splits=config.splits.names, costs=costs)
        manifest, files = Manifest(out), store.crops()
        for kind in config.output.kinds:

            def tell(n: int, kind: str = kind) -> None:
                report(walk.progress(kind, n, summary.kept))

            outputs.write_output(config.output, kind, manifest, files, out, tell)
        write_text(out / "README.md", card(summary, totals, config.crop.size, categories))
        write_text(out / "summary.json", summary.as_json())
    return summary


def hold_out(config: CurationConfig) -> CurationConfig:
    """The configuration with every source that is for tests only in a split of its own.

    Raises:
        ConfigError: `splits.fixed` puts one into a split that other sources are divided into.
    """
    fixed = dict(config.splits.fixed)
    for name in test_only_names(config.sources):
        split = fixed.setdefault(name, "test")
        expected = "a split outside splits.parts, since the source is for tests only"
        check(split not in config.splits.parts, f"splits.fixed.{name}", split, expected)
    splits = dataclasses.replace(config.splits, fixed=fixed)
    return dataclasses.replace(config, splits=splits)


class _Walk:
    """From the sources to parts on disk: what is left becomes a plan, results are counted."""

    def __init__(
        self,
        config: CurationConfig,
        store: Store,
        photos: Sequence[Source],
        report: Callable[[RunProgress], None],
    ) -> None:
        self.seen = TaskSet()  # every task of this run, done now or before
        self._images = 0
        self._config = config
        self._store = store
        self._photos = photos
        self._report = report
        self._worked = self._errors = self._earlier = 0
        self._trouble = ""
        self._counts: Counts = Counter()

    def work(self, engine: LocalEngine | RayEngine, out: Path) -> dict[str, tuple[int, float]]:
        """Do what is not done yet; returns CPU seconds by stage."""
        costs: dict[str, tuple[int, float]] = {}
        plan = write_plan(self._store.plan, self._tasks(), self._config.chunk)
        total = self._images
        results = engine.run(self._config, out, plan)
        try:
            with contextlib.closing(results):
                for done in results:
                    self._worked += done.images
                    self._errors += done.errors
                    self._trouble = done.trouble or self._trouble
                    self._counts += done.counts
                    add_costs(costs, done.costs)
                    self._store.log_costs(done.costs)
                    self._report(self.progress("crops", self._worked + self._earlier, total))
                    self._judge_errors(_FIRST)
        finally:
            plan.path.unlink(missing_ok=True)  # the next run makes its own
        # of all tasks of this run, those of earlier runs too
        self._errors = passes.count_errors(self._store, self.seen)
        self._judge_errors(1)
        return costs

    def progress(self, doing: str, done: int, total: int | None = None) -> RunProgress:
        """The progress of the run."""
        return RunProgress(
            doing=doing,
            done=done,
            total=total,
            images=self._worked,
            earlier=self._earlier,
            errors=self._errors,
            counts=self._counts.copy(),
        )

    def _tasks(self) -> Iterator[Task]:
        """The tasks of all sources that are not done yet."""
        done, keys = self._store.tasks(), TaskSet()
        for image in itertools.chain.from_iterable(self._photos):
            repeat = 0
            while (key := int(content_id(image.source, image.key, repeat), 16)) in keys:
                repeat += 1
            keys.add(key)
            task = Task.of(image, repeat)
            self._images += 1
            self.seen.add(int(task.id, 16))
            if int(task.id, 16) in done:
                self._earlier += 1
            else:
                yield task
            if self._images % _EVERY == 0:
                self._report(self.progress("plan", self._images))

    def _judge_errors(self, least: int) -> None:
        """Stop once the allowed share is passed.

        Raises:
            CurationError: it is.
        """
        allowed = self._config.errors
        of = self._worked + self._earlier
        if self._errors > allowed * max(of, least):
            one = f", such as {self._trouble}" if self._trouble else ""
            raise CurationError(
                f"{self._errors} of {of} images cannot be used{one}: more than the {allowed:.1%} "
                "that `errors` allows; what is done is kept, and a run that allows more resumes"
            )


def _check_names(photos: Sequence[Source]) -> None:
    if not photos:
        raise CurationError("there are no sources; name photos or annotations to start from")
    names = Counter(source.name for source in photos)
    for name, n in names.items():
        if n > 1:
            raise CurationError(f"two sources are called {name}; `name` tells them apart")


def about(config: CurationConfig) -> dict[str, Any]:
    """The settings that the manifest depends on, of a configuration as `hold_out` gives it."""
    values = plain(config)
    test_only = {name: config.splits.fixed[name] for name in test_only_names(config.sources)}
    quality = ["metrics", "all_scores", "top", *(["eq1"] if config.quality.eq1 else [])]
    return {
        "name": config.name,
        "stages": per_image_settings(config),
        **{key: values[key] for key in ("duplicates", "splits")},
        **({"limits": values["limits"]} if config.limits else {}),
        **({"test_only": test_only} if test_only else {}),
        "quality": {key: values["quality"][key] for key in quality},
    }
