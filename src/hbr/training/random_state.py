"""Random numbers of a step that are independent of how its batch is split.

Shapes: b crops of a part, B crops of the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class RandomState:
    """Draws the random numbers of a part of a batch as if the batch were not split.

    The numbers for all B crops are drawn, and those of the part are returned. Several processes, or
    several parts of an accumulated step, therefore get the same numbers as one whole batch.

    Attributes:
        generator: the step's generator; every part has its own, in the same state.
        whole: B; None if the part is the whole batch.
        first: index of the part's first crop in the whole batch.
    """

    generator: Generator
    whole: int | None = None
    first: int = 0

    def timesteps(self, between: tuple[int, int], like: Tensor) -> Tensor:
        """Draw a timestep for each crop of `like` from [low, high): int64 [b]."""
        drawn = torch.randint(*between, (self._whole(like),), generator=self.generator)
        return self._part(drawn, like)

    def integers(self, below: int, like: Tensor) -> Tensor:
        """Draw an integer for each crop of `like` from [0, below): int64 [b]."""
        return self.timesteps((0, below), like)

    def noise(self, like: Tensor) -> Tensor:
        """Draw Gaussian noise, float32 in the shape of `like`; the same on every device."""
        shape = (self._whole(like), *like.shape[1:])
        return self._part(torch.randn(shape, generator=self.generator), like)

    def uniform(self, like: Tensor) -> Tensor:
        """Draw a number for each crop of `like` from [0, 1): float32 [b]."""
        return self._part(torch.rand(self._whole(like), generator=self.generator), like)

    def first_of(self, share: float, like: Tensor) -> int:
        """How many crops of `like` are among the first `share` of the whole batch."""
        return min(max(round(share * self._whole(like)) - self.first, 0), len(like))

    def _whole(self, like: Tensor) -> int:
        return len(like) if self.whole is None else self.whole

    def _part(self, drawn: Tensor, like: Tensor) -> Tensor:
        return drawn[self.first : self.first + len(like)].to(like.device)
