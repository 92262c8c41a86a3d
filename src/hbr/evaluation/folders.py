"""Metrics that give one number for two folders of pictures, as FID does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hbr.evaluation.measuring import Measured, why_failed, why_not
from hbr.metrics import MetricInfo, load_metric


class FolderMetrics:
    """The metrics of an evaluation that are over folders, loaded once.

    Attributes:
        infos: id → its row as it was loaded.
        unavailable: id → one line that says why it could not be.
        warnings: what a reader of the numbers must know, a line each.
    """

    def __init__(self, infos: Iterable[MetricInfo], device: str, weights: Path | None) -> None:
        """Load what can be loaded."""
        self.unavailable: dict[str, str] = {}
        self.warnings: list[str] = []
        self._metrics: dict[str, Any] = {}
        for info in infos:
            try:
                self._metrics[info.id] = load_metric(info.id, device=device, weights=weights)
            except Exception as error:  # of a device that is not there, torch raises anything
                self.unavailable[info.id] = why_not(info.id, error)
        self.infos = {name: metric.info for name, metric in self._metrics.items()}

    def measure(
        self,
        rows: Sequence[Measured],
        statistics: Path | None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Mapping[str, float | str]:
        """Metric id → the number, or one line that says why there is none.

        Args:
            rows: the restored pictures of those without an error go in, and all references.
            statistics: a folder that keeps what is known of the restored pictures; what is known
                of references is kept in hbr's cache.
            progress: called with the number of pictures of a folder that are done, and of all.
        """
        if not self._metrics:
            return {}
        from hbr.metrics.frechet import few_pictures, frechet_distance, statistics_folder

        restored = [row.pair.restored for row in rows if row.error is None]
        references = [cast(Path, row.pair.reference) for row in rows]
        found: dict[str, float | str] = {}
        for name, metric in self._metrics.items():
            try:
                of_references = metric.over_files(
                    references, cache=statistics_folder(), progress=progress
                )
                of_restored = metric.over_files(restored, cache=statistics, progress=progress)
                found[name] = frechet_distance(of_restored, of_references)
            except (ValueError, OSError, RuntimeError) as error:
                found[name] = why_failed(error)
            else:
                if line := few_pictures(of_restored, of_references):
                    self.warnings.append(f"{name} {line}")
        return found
