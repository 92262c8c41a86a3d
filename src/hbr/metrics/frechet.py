"""FID: the distance between two sets of images, as Gaussians of features (Heusel et al. 2017).

Shapes: n pictures, b batch, d features, h w pixels. Images are RGB in [0, 1].
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from hbr.files import replacing, sha256
from hbr.image import PhotoError, read_photo
from hbr.metrics.base import MetricError, MetricInfo

_LOG = logging.getLogger("hbr.metrics")
_BATCH = 16


class Extractor(Protocol):
    """A feature extractor."""

    id: str
    """Names the network and its weights: statistics are comparable only with the same id."""

    def __call__(self, images: Tensor) -> Tensor:
        """RGB [b, 3, h, w] in [0, 1] → [b, d]."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """The Gaussian of the features of a set of images.

    Attributes:
        mean: [d], float64.
        covariance: [d, d], float64, unbiased.
        count: number of images.
        extractor: id of the feature extractor.
        content: SHA-256 over the files' contents; empty when it was not made from files.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int
    extractor: str
    content: str = ""

    def save(self, path: str | Path) -> None:
        """Write an .npz file, whole or not at all."""
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, **vars(self))

    @classmethod
    def load(cls, path: str | Path) -> Statistics:
        """Read a file that `save` wrote.

        Raises:
            MetricError: the file is missing, damaged or of another kind.
        """
        try:
            with np.load(path, allow_pickle=False) as held:
                found = cls(
                    mean=held["mean"],
                    covariance=held["covariance"],
                    count=int(held["count"]),
                    extractor=str(held["extractor"]),
                    content=str(held["content"]),
                )
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or f"{error}"
            raise MetricError(f"{path} does not hold image statistics: {reason}") from None
        if found.covariance.shape != (len(found.mean), len(found.mean)) or found.count < 2:
            raise MetricError(f"{path} does not hold image statistics: its shapes do not fit")
        return found


class Moments:
    """Mean and covariance in one pass, merged batch by batch (Chan, Golub, LeVeque 1983).

    Holds d + d² numbers, however many images there are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def update(self, features: np.ndarray) -> None:
        """Add a batch [b, d]."""
        batch = np.asarray(features, dtype=np.float64)
        if len(batch) == 0:
            return
        mean = batch.mean(axis=0)
        centred = batch - mean
        scatter = centred.T @ centred
        if self.count == 0:
            self.count, self._mean, self._scatter = len(batch), mean, scatter
            return
        total = self.count + len(batch)
        step = mean - self._mean
        self._scatter += scatter + np.outer(step, step) * (self.count * len(batch) / total)
        self._mean = self._mean + step * (len(batch) / total)
        self.count = total

    def statistics(self, extractor: str, content: str = "") -> Statistics:
        """The statistics so far.

        Raises:
            MetricError: fewer than two pictures.
        """
        if self.count < 2:
            raise MetricError(f"FID takes two pictures or more in each set; got {self.count}")
        covariance = self._scatter / (self.count - 1)
        return Statistics(
            mean=self._mean,
            covariance=covariance,
            count=self.count,
            extractor=extractor,
            content=content,
        )


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 √(Σ_a Σ_b)), eq. 6 of Heusel et al.

    The trace of the root is that of √(√Σ_a Σ_b √Σ_a), whose argument is symmetric: it holds where
    fewer pictures than features make the covariances singular. Never below 0.

    Raises:
        MetricError: the statistics come from different extractors.
    """
    if a.extractor != b.extractor or a.mean.shape != b.mean.shape:
        raise MetricError(
            "statistics are comparable only if one extractor made them; "
            f"got {a.extractor!r} and {b.extractor!r}"
        )
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    inner = root @ b.covariance @ root
    common = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(min=0)).sum()
    apart = ((a.mean - b.mean) ** 2).sum()
    return float(max(apart + np.trace(a.covariance) + np.trace(b.covariance) - 2 * common, 0.0))


def few_pictures(a: Statistics, b: Statistics) -> str | None:
    """A warning where the distance is biased: fewer images than features."""
    if min(a.count, b.count) >= len(a.mean):
        return None
    return (
        f"of {a.count} and {b.count} pictures: with fewer than {len(a.mean)} the value is biased "
        "upwards, and comparable only with values of as many pictures"
    )


class FrechetDistance:
    """FID, by the statistics of two sets of files; see `frechet_distance`."""

    def __init__(self, info: MetricInfo, extractor: Extractor) -> None:
        self.info = info
        self.extractor = extractor

    def over_files(
        self,
        files: Sequence[Path],
        *,
        cache: Path | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Statistics:
        """The statistics of image files, in one pass; read from `cache` if they are there.

        Args:
            files: in any order; those that cannot be read are left out, which is logged.
            cache: a folder; the statistics of a set are kept there under the extractor's id and
                the contents of the files. None keeps nothing.
            progress: called with the number of files that are done, and of all.

        Raises:
            MetricError: fewer than two pictures can be read.
        """
        content = _content_of(files)
        kept = None
        if cache is not None:
            name = hashlib.sha256(f"{self.extractor.id}\n{content}".encode()).hexdigest()[:32]
            kept = cache / f"{name}.npz"
            held = _read_kept(kept, self.extractor.id, content)
            if held is not None:
                progress(len(files), len(files))
                return held
        moments = Moments()
        bad = 0
        batch: list[Tensor] = []
        for done, file in enumerate(files, 1):
            try:
                picture = read_photo(file).displayed().tensor()
                if batch and (picture.shape != batch[0].shape or len(batch) == _BATCH):
                    self._add(moments, batch)
                batch.append(picture)
            except PhotoError as error:
                bad += 1
                _LOG.warning("left out of %s: %s", self.info.id, error)
            progress(done, len(files))
        self._add(moments, batch)
        found = moments.statistics(self.extractor.id, content)
        if kept is not None and not bad:
            try:
                found.save(kept)
            except OSError as error:  # a full disk must not cost the result
                _LOG.warning("%s: %s; the statistics are not kept", kept, error.strerror or error)
        return found

    def _add(self, moments: Moments, batch: list[Tensor]) -> None:
        if batch:
            moments.update(self.extractor(torch.cat(batch)).double().cpu().numpy())
            batch.clear()


def _read_kept(file: Path, extractor: str, content: str) -> Statistics | None:
    """The statistics that `over_files` cached; None if there are none, or if they are damaged."""
    if not file.is_file():
        return None
    try:
        held = Statistics.load(file)
    except MetricError:
        return None
    return held if (held.extractor, held.content) == (extractor, content) else None


def statistics_folder() -> Path:
    """The folder of cached statistics of references."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "hbr" / "statistics"


def _content_of(files: Iterable[Path]) -> str:
    """One SHA-256 for the contents of all files, whatever their names and their order.

    An unreadable file contributes its name; its error is raised when it is read as an image.
    """

    def digest(file: Path) -> str:
        try:
            return sha256(file)
        except OSError:
            return f"unreadable {file.name}"

    # statistics of before were of 16 bits, and of hidden pixels
    lines = ["8 bits on white", *sorted(map(digest, files))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
