"""The share of work of this process: rank, world size, shard i of n."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from hbr.config import check, check_least


def rank() -> int:
    """Return the rank of this process, from 0; 0 without a launcher."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Return the number of processes of the run; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of the work.

    Items are assigned by a hash of their content, independently of their order and of other items.

    Attributes:
        index: index of the shard, from 0.
        count: number of shards.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        check_least(self, 1, "count")
        check(0 <= self.index < self.count, "index", self.index, f"from 0 to {self.count - 1}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse "i/n", as in `--shard 0/4`; i counts from 0.

        Raises:
            ConfigError: the format is different, or i is not less than n.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        check(match is not None, "shard", text, "i/n, i from 0 to n-1, as in 0/4")
        assert match is not None
        return cls(int(match[1]), int(match[2]))

    @property
    def suffix(self) -> str:
        """What names of files of this shard end in: `-0-of-4`; nothing if it is the only one."""
        return f"-{self.index}-of-{self.count}" if self.count > 1 else ""

    def __contains__(self, digest: str) -> bool:
        """Return whether the item with this hexadecimal content hash belongs to the shard."""
        return int(digest[:16], 16) % self.count == self.index
