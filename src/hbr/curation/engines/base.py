"""The interface of engines, which run the chunks of a plan on one machine or many."""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol

from hbr.curation.pipeline.chunk import ChunkDone, ChunkWork
from hbr.curation.pipeline.plan import Plan


class Engine(Protocol):
    """Runs `work.open()` once in each worker, and what it returns on each chunk.

    A chunk is done when its part is on disk; the engine only reports it. Chunks are read from the
    plan no faster than they are done.
    """

    def check(self, work: ChunkWork) -> None:
        """Check that workers have all they need, before the sources of a new run are read.

        Raises:
            MetricError, DetectorError, ConfigError: as `load_models`.
            CurationError: the engine cannot run this.
        """
        ...

    def run(self, work: ChunkWork, plan: Plan) -> Generator[ChunkDone, None, None]:
        """Run chunks, in any order.

        Closing the generator before its end stops all workers; what they had begun is not done.

        Raises:
            CurationError: a worker was lost.
            OSError: a part cannot be written.
        """
        ...
