"""What a worker loads once: the detector, the metrics and the tagger of a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from hbr.config import ConfigError
from hbr.curation.config import CurationConfig, DetectorConfig
from hbr.curation.pipeline.stages.measures import MEASURES
from hbr.curation.pipeline.stages.quality import Scorer, cheapest_first, load_scorer
from hbr.curation.tagging import CropTagger, load_tagger
from hbr.metrics.base import MetricError
from hbr.people.types import DetectorError
from hbr.weights import WeightsError

Detect = Callable[[Sequence[np.ndarray]], list[Any]]
"""[h, w, 3] uint8 RGB images → the `hbr.people.People` of each."""


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


def names_models(config: CurationConfig) -> bool:
    """Whether a configuration names anything that `load_models` loads."""
    metrics = any(metric.name not in MEASURES for metric in config.quality.metrics)
    return metrics or config.boxes.detector is not None or config.tagger is not None


def load_models(config: CurationConfig) -> Models:
    """Load all that a configuration names.

    Raises:
        MetricError, DetectorError, ConfigError, WeightsError: something is missing. The message
            names all that is, each with the way to get it; the error is of the kind of the first.
    """
    missing: list[ValueError] = []

    def attempt(load: Callable[[], Any]) -> Any:
        try:
            return load()
        except (MetricError, DetectorError, ConfigError, WeightsError) as error:
            missing.append(error)
            return None

    detector, tagger = config.boxes.detector, config.tagger
    scorers = [
        attempt(partial(load_scorer, metric.name, config.quality))
        for metric in cheapest_first(config.quality.metrics)
    ]
    detect = attempt(partial(_load_detector, detector)) if detector else None
    tag = attempt(partial(load_tagger, tagger)) if tagger else None
    if missing:
        raise type(missing[0])("; also: ".join(map(str, missing)))
    return Models(tuple(scorers), detect, tag)


def _load_detector(detector: DetectorConfig) -> Detect:
    from hbr.people.detectors import load_detector

    return load_detector(
        detector.name, device=detector.device, threshold=detector.score, batch_size=detector.batch
    )
