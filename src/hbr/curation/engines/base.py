"""What an engine is: something that gets chunks done, here or elsewhere, with one function."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from hbr.curation.pipeline.chunk import Chunk, ChunkDone, ChunkWork


class Engine(Protocol):
    """Runs `work.open()` once in each worker, and what it gives on each chunk.

    A chunk is done when its part is on disk; the engine only says so. It takes chunks from the
    iterator no faster than it works, so that a source of millions never lies in memory.
    """

    def run(self, work: ChunkWork, chunks: Iterable[Chunk]) -> Iterator[ChunkDone]:
        """Get chunks done, in any order.

        Leaving the iterator before its end stops all workers; what they had begun is not done.

        Raises:
            CurationError: a worker was lost.
            OSError: a part cannot be written.
        """
        ...
