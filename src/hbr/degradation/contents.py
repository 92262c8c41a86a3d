"""Files to degrade, what they hold, and which shard they belong to."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hbr.config import ConfigError
from hbr.distributed import Shard
from hbr.errors import display_name
from hbr.image import PhotoError
from hbr.people.types import Person


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file to degrade.

    Attributes:
        source, target: what is read and what is written.
        name, hq: of target and source in the manifest.
        people: those in the photo, for motion blur.
    """

    source: Path
    target: Path
    name: str
    hq: str
    people: tuple[Person, ...] = ()


def refuse_existing(items: Sequence[Item], shard: Shard) -> None:
    """Refuse to work where outputs of this shard exist.

    Raises:
        ConfigError: one does.
    """
    there = [item for item in items if os.path.lexists(item.target)]
    if shard.count > 1:
        there = [item for item in there if _digest_or_name(item) in shard]
    if there:
        verb = f"and {len(there) - 1} more outputs exist" if len(there) > 1 else "exists"
        raise ConfigError(
            f"{display_name(there[0].target)} {verb}; "
            "--resume keeps what is finished, --overwrite makes it again"
        )


def _digest_or_name(item: Item) -> str:
    try:
        return hashlib.sha256(contents(item)).hexdigest()
    except PhotoError:
        return digest_of_name(item)


def digest_of_name(item: Item) -> str:
    """What decides over the shard of a file that cannot be read."""
    return hashlib.sha256(os.fsencode(item.hq)).hexdigest()


def contents(item: Item) -> bytes:
    """The bytes of the HQ file.

    Raises:
        PhotoError: it is not a regular file, or cannot be read.
    """
    name = display_name(item.hq)
    try:
        if not stat.S_ISREG(item.source.stat().st_mode):  # reading a pipe would block
            raise PhotoError(f"{name}: is not a regular file; name a photograph")
        return item.source.read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PhotoError(f"{name}: cannot be read ({reason}); check the file") from None
