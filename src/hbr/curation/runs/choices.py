"""A person's choices among a run's crops, kept in `review.json` of the run's folder."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbr.curation.manifest import Manifest
from hbr.curation.record import CurationError

NAME = "review.json"


@dataclass(frozen=True)
class Review:
    """A person's choices among a run's crops.

    Attributes:
        run: identity of the run, by its candidates.
        seen: ids of the crops that were shown.
        left_out: ids of those that are left out.
    """

    run: str
    seen: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()


def identity(manifest: Manifest) -> str:
    """16 hexadecimal digits of all candidates of a run; choices do not change it."""
    digest = hashlib.sha256()
    for text in manifest.columns("id")["id"].to_pylist():
        digest.update(text.encode())
    return digest.hexdigest()[:16]


def read_review(path: Path) -> Review:
    """Read choices: those that a page saved, or those that a run keeps.

    Raises:
        CurationError: the file is missing, or holds no choices.
    """
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        run, lists = values["run"], [values[name] for name in ("seen", "left_out")]
        if not isinstance(run, str) or not all(
            isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists
        ):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) else ""
        raise CurationError(f"{path} holds no choices of hbr curate review{why}") from None
    seen, left_out = map(frozenset, lists)
    if not left_out <= seen:
        raise CurationError(f"{path}: left_out names crops that are not among seen")
    return Review(run, seen, left_out)


def kept_review(out: Path) -> Review:
    """The choices that the folder of a run keeps; empty, of no run, if nobody has reviewed it."""
    path = out / NAME
    return read_review(path) if path.is_file() else Review("")
