"""What a worker loads once: the detector, the metrics and the tagger of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
"""[h, w, 3] uint8 RGB images → the `hbr.people.types.People` of each."""

_MISSING = (MetricError, DetectorError, ConfigError, WeightsError)


@dataclass(frozen=True, kw_only=True)
class Models:
    """What looks at images and crops.

    Attributes:
        scorers: the metrics, cheapest first.
        detect: finds people; None without a detector.
        tag: None without a tagger.
        missing: `detect`, `tags` or a metric → why it could not be loaded, and how to get it.
    """

    scorers: tuple[Scorer, ...]
    detect: Detect | None
    tag: CropTagger | None
    missing: Mapping[str, Exception]


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
    models = load_available(config)
    errors = list(models.missing.values())
    for error in errors:
        if not isinstance(error, _MISSING):
            raise error
    if errors:
        raise type(errors[0])("; also: ".join(map(str, errors)))
    return models


def load_available(config: CurationConfig) -> Models:
    """Load what can be loaded on this machine, which may lack a device too (RuntimeError)."""
    missing: dict[str, Exception] = {}

    def attempt(name: str, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except (*_MISSING, RuntimeError, AssertionError) as error:
            missing[name] = error
            return None

    detector, tagger = config.boxes.detector, config.tagger
    metrics = [metric.name for metric in cheapest_first(config.quality.metrics)]
    scorers = [attempt(name, partial(load_scorer, name, config.quality)) for name in metrics]
    return Models(
        scorers=tuple(scorer for scorer in scorers if scorer is not None),
        detect=attempt("detect", partial(_load_detector, detector)) if detector else None,
        tag=attempt("tags", partial(load_tagger, tagger)) if tagger else None,
        missing=missing,
    )


def _load_detector(detector: DetectorConfig) -> Detect:
    from hbr.people.detectors import load_detector

    return load_detector(
        detector.name, device=detector.device, threshold=detector.score, batch_size=detector.batch
    )
