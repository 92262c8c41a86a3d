"""What a worker loads once: the detector, the metrics and the tagger of a run."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import numpy as np

from hbr.config import ConfigError
from hbr.curation.config import CurationConfig, DetectorConfig
from hbr.curation.pipeline.stages.quality import Scorer, cheapest_first, load_scorer
from hbr.metrics.base import MetricError
from hbr.people.types import DetectorError

Detect = Callable[[Sequence[np.ndarray]], list[Any]]
"""[h, w, 3] uint8 RGB images → the `hbr.people.People` of each."""


class CropTagger(Protocol):
    """Tags crops with what is in them (Fig. 7)."""

    def __call__(self, crops: Sequence[np.ndarray]) -> list[list[str]]:
        """Tags for each of [h, w, 3] uint8 RGB crops."""


@dataclass(frozen=True)
class Models:
    """What looks at images and crops.

    Attributes:
        scorers: the metrics, cheapest first.
        detect: finds people; None without a detector.
        tag: None without a tagger.
    """

    scorers: tuple[Scorer, ...]
    detect: Detect | None
    tag: CropTagger | None


def load_models(config: CurationConfig) -> Models:
    """Load all that a configuration names.

    Raises:
        MetricError, DetectorError, ConfigError: something is missing. The message names all that
            is, each with the way to get it; the error is of the kind of the first.
    """
    missing: list[ValueError] = []

    def attempt(load: Callable[[], Any]) -> Any:
        try:
            return load()
        except (MetricError, DetectorError, ConfigError) as error:
            missing.append(error)
            return None

    detector, tagger = config.boxes.detector, config.tagger
    scorers = [
        attempt(partial(load_scorer, metric, config.quality))
        for metric in cheapest_first(config.quality.metrics)
    ]
    detect = attempt(partial(_load_detector, detector)) if detector else None
    tag = attempt(partial(_load_tagger, tagger)) if tagger else None
    if missing:
        raise type(missing[0])("; also: ".join(map(str, missing)))
    return Models(tuple(scorers), detect, tag)


def _load_detector(detector: DetectorConfig) -> Detect:
    from hbr.people.detectors import load_detector

    return load_detector(
        detector.name,
        device=detector.device,
        threshold=detector.score,
        batch_size=detector.batch,
    )


def _load_tagger(place: str) -> CropTagger:
    """What `package.module:function` gives."""
    module, name = place.split(":")
    try:
        made = importlib.import_module(module)
        for part in name.split("."):
            made = getattr(made, part)
        return cast("Callable[[], CropTagger]", made)()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"tagger {place!r} cannot be loaded: {error}") from None
