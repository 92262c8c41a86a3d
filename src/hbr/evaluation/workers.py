"""Measures pairs in worker processes: in order, with bounded memory, surviving a worker's death.

The process that runs this loads no torch; the workers (`hbr.evaluation.measuring`) do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from hbr.evaluation.measuring import Availability, MeasureConfig, Measured, Measurer, open_measurer
from hbr.evaluation.pairing import PicturePair
from hbr.processes import WorkerDied, pool_map

Result = tuple[list[Measured], Availability]
PairChunk = tuple[PicturePair, ...]

_PRELOAD = ("torch", "cv2", "hbr.evaluation.measuring")


def measure_all(
    pairs: Sequence[PicturePair],
    config: MeasureConfig,
    *,
    workers: int,
    batch: int,
    known: Path | None = None,
) -> Iterator[Result]:
    """Measure every pair; results come in the order of the pairs, a batch at a time.

    A batch whose worker dies is measured again one pair at a time; only a pair whose process dies
    again is lost.

    `workers` have one thread each, 0 works in this process; `batch` pairs are read, and given to a
    metric, at once; `known` is a file of values of an earlier run.

    Yields:
        the pairs of a batch, and which metrics could be loaded.
    """
    chunks = [tuple(pairs[i : i + batch]) for i in range(0, len(pairs), batch)]
    if workers == 0:
        measurer = Measurer(config, known)
        for chunk in chunks:
            yield measurer(chunk), measurer.available
        return
    worker = partial(open_measurer, config, known)
    for result in pool_map(worker, chunks, workers=workers, preload=_PRELOAD):
        yield _one_by_one(worker, result.item) if isinstance(result, WorkerDied) else result


def _one_by_one(worker: Callable[[], Callable[[PairChunk], Result]], chunk: PairChunk) -> Result:
    found: list[Measured] = []
    available = Availability()
    singles = [(pair,) for pair in chunk]
    for result in pool_map(worker, singles, workers=1, preload=_PRELOAD):
        if isinstance(result, WorkerDied):
            (pair,) = result.item
            line = (
                f"{pair.restored.name}: the process that measured it died, possibly out of memory"
            )
            found.append(Measured(pair=pair, error=line))
        else:
            measured, available = result
            found += measured
    return found, available
