"""Photos through a detector in batches that fit into memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from hbr.devices import fit_in_memory
from hbr.errors import OutOfMemoryError

log = logging.getLogger(__name__)

T = TypeVar("T")


def in_batches(
    images: Sequence[np.ndarray], run: Callable[[Sequence[np.ndarray]], list[T]], batch_size: int
) -> tuple[list[T], int]:
    """Call `run` on batches of images; halve the batch size when memory runs out.

    Returns:
        the result for each image, and the batch size that fits.

    Raises:
        OutOfMemoryError: one image does not fit.
    """
    found: list[T] = []

    def next_batch(size: int) -> list[T]:
        return run(images[len(found) : len(found) + size])

    def halved(size: int) -> int:
        size = min(size, len(images) - len(found)) // 2
        if size == 0:
            raise OutOfMemoryError("out of memory on one image; use --device cpu")
        log.warning("out of memory: detecting people in %d images at a time", size)
        return size

    while len(found) < len(images):
        batch, batch_size = fit_in_memory(next_batch, batch_size, halved)
        found += batch
    return found, batch_size
