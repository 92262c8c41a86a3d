"""A run on a cluster before there is one: chunks that flow past disks, cores, GPUs and a driver.

A discrete simulation of the engine: the driver goes through the sources and keeps a bounded number
of chunks under way. A chunk's bytes come from shared storage; a core decodes, cuts and encodes; a
GPU detects and scores what came through; the driver notes the chunk as done. At the end one
process makes the passes over the whole set. Each is a queue, first come first served; what is not
a queue here (network, memory, lost workers) costs nothing.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass

from hbr.config import check


@dataclass(frozen=True)
class Costs:
    """What an image or a crop costs, in milliseconds of one core or one GPU.

    Attributes:
        cpu_ms: of a core for an image: read, boxes, sharpness, crop, resize, hash, encode, write.
        gpu_ms: of a GPU for an image: the detector, times the share of unlabelled images.
        crop_gpu_ms: of a GPU for a crop: the metrics.
        crops: for an image, that come to the metrics.
        megabytes: of an image's file.
        driver_ms: of the driver for an image: reading the annotations, handing out, noting.
        row_ms: of one process for a row, in the passes over the whole set and the outputs.
        spread: deviation of a chunk's cost, as part of it.
    """

    cpu_ms: float
    gpu_ms: float
    crop_gpu_ms: float
    crops: float
    megabytes: float = 0.35
    driver_ms: float = 0.05
    row_ms: float = 0.25
    spread: float = 0.15


@dataclass(frozen=True)
class Cluster:
    """What there is.

    Attributes:
        gpus: how many.
        cores: for each GPU.
        storage: megabytes a second from shared storage, for all together.
        start: seconds until the workers have loaded their weights.
    """

    gpus: int
    cores: int = 16
    storage: float = 2000.0
    start: float = 120.0

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.gpus >= 1, "gpus", self.gpus, "1 or more")
        check(self.cores >= 1, "cores", self.cores, "1 or more")
        check(self.storage > 0, "storage", self.storage, "above 0")


@dataclass(frozen=True)
class Simulated:
    """What came of it.

    Attributes:
        hours: from the start to the last output.
        crops_hours: of these, until the last chunk was done.
        busy: resource → share of `crops_hours` that it worked.
    """

    hours: float
    crops_hours: float
    busy: dict[str, float]

    @property
    def bound_by(self) -> str:
        """The busiest resource."""
        return max(self.busy, key=lambda name: self.busy[name])


class _Queue:
    """Servers that take the next job as soon as one of them is free."""

    def __init__(self, servers: int, start: float) -> None:
        self._free = [start] * servers
        self.servers, self.work = servers, 0.0

    def serve(self, ready: float, seconds: float) -> float:
        """When a job is done that is ready at a time."""
        began = max(ready, heapq.heappop(self._free))
        heapq.heappush(self._free, began + seconds)
        self.work += seconds
        return began + seconds


def simulate(
    images: int, costs: Costs, cluster: Cluster, *, chunk: int = 128, seed: int = 0
) -> Simulated:
    """How long a run takes.

    Args:
        images: of all sources.
        costs: what each costs.
        cluster: what there is.
        chunk: images that go together.
        seed: of the spread.
    """
    check(images >= 1, "images", images, "1 or more")
    rng = random.Random(seed)
    storage, driver = _Queue(1, cluster.start), _Queue(1, 0.0)
    cores, gpus = _Queue(cluster.gpus * cluster.cores, cluster.start), _Queue(cluster.gpus, 0.0)
    limit = 2 * (cluster.gpus * cluster.cores)  # chunks under way: back-pressure
    under_way: list[float] = []
    left = images
    last = 0.0
    while left:
        n = min(chunk, left)
        left -= n
        ready = heapq.heappop(under_way) if len(under_way) >= limit else 0.0
        ready = driver.serve(ready, n * costs.driver_ms / 1e3)
        ready = storage.serve(ready, n * costs.megabytes / cluster.storage)
        ready = cores.serve(ready, _vary(rng, n * costs.cpu_ms / 1e3, costs.spread))
        work = n * (costs.gpu_ms + costs.crops * costs.crop_gpu_ms) / 1e3
        done = gpus.serve(ready, _vary(rng, work, costs.spread)) if work else ready
        heapq.heappush(under_way, done)
        last = max(last, done)
    rows = images * max(1.0, costs.crops)
    whole = last + rows * costs.row_ms / 1e3
    parts = {"storage": storage, "cores": cores, "GPUs": gpus, "driver": driver}
    busy = {name: queue.work / queue.servers / last for name, queue in parts.items()}
    return Simulated(whole / 3600, last / 3600, busy)


def _vary(rng: random.Random, seconds: float, spread: float) -> float:
    return max(0.0, rng.gauss(seconds, spread * seconds))
