"""Metrics that give one number for two folders of pictures, as FID does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hbr.evaluation.measuring import Measured, one_line
from hbr.metrics import MetricInfo, load_metric


class FolderMetrics:
    """The metrics of an evaluation that are over folders, loaded once."""

    def __init__(self, infos: Iterable[MetricInfo], device: str, weights: Path | None) -> None:
        """Load what can be loaded; what cannot is in `unavailable`."""
        self.unavailable: dict[str, str] = {}
        self._metrics: dict[str, Any] = {}
        for info in infos:
            try:
                self._metrics[info.id] = load_metric(info.id, device=device, weights=weights)
            except (ValueError, OSError, ImportError) as error:
                self.unavailable[info.id] = one_line(error)

    def measure(
        self, rows: Sequence[Measured], statistics: Path | None
    ) -> Mapping[str, float | str]:
        """Metric id → the number, or one line that says why there is none.

        Args:
            rows: the restored pictures of those without an error go in, and all references.
            statistics: a folder that keeps what is known of the restored pictures; what is known
                of references is kept in hbr's cache.
        """
        if not self._metrics:
            return {}
        from hbr.metrics.frechet import frechet_distance, statistics_folder

        restored = [row.pair.restored for row in rows if row.error is None]
        references = [cast(Path, row.pair.reference) for row in rows]
        found: dict[str, float | str] = {}
        for name, metric in self._metrics.items():
            try:
                of_references = metric.over_files(references, cache=statistics_folder())
                of_restored = metric.over_files(restored, cache=statistics)
                found[name] = frechet_distance(of_restored, of_references)
            except (ValueError, OSError, RuntimeError) as error:
                found[name] = one_line(error)
        return found
