"""Which part of the work is this process's: rank, world size, shard i of n."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from hbr.config import check


def rank() -> int:
    """This process's number among all of the run, from 0; 0 where nothing launched several."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the work.

    What belongs to it is decided by a hash of each item's content, so that it depends neither on
    the order of the items nor on what else there is.

    Attributes:
        index: from 0.
        count: how many shards there are.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Check every field."""
        check(self.count >= 1, "count", self.count, "1 or more")
        check(0 <= self.index < self.count, "index", self.index, f"from 0 to {self.count - 1}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read "i/n", as in `--shard 0/4`; i counts from 0.

        Raises:
            ConfigError: it is of another form, or i is not below n.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        check(match is not None, "shard", text, "i/n, i from 0 to n-1, as in 0/4")
        assert match is not None
        return cls(int(match[1]), int(match[2]))

    def __contains__(self, digest: str) -> bool:
        """Whether the item with this hexadecimal content hash belongs to the shard."""
        return int(digest[:16], 16) % self.count == self.index
