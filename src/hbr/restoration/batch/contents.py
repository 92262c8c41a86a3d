"""Which bytes outputs were restored from, to resume by contents and not by dates."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbr.files import sha256
from hbr.ledger import SharedLedger
from hbr.version import __version__

# settings that change no byte of an output
_NO_MATTER = ("batch", "keep_times", "max_pixels", "strict")


@dataclass(frozen=True)
class ByContents:
    """Outputs are kept that were restored from what their inputs hold now.

    Attributes:
        settings: digest of what they depend on besides the input (`digest_of`), and they are the
            files that were written then; None if an output stands whatever it was made with, and
            whatever was done to it since.
    """

    settings: str | None


class ContentRecord:
    """The SHA-256 of the input of each output, and what it was restored with.

    It lies in the folder of the outputs, a row for each output, and is shared by the runs that
    write there.
    """

    def __init__(self, folder: Path, by: ByContents, part: str = "") -> None:
        """Read what earlier runs have recorded; nothing is written before the first output.

        Args:
            folder: of the outputs.
            by: which outputs count as finished.
            part: what the file of this run has in its name, as `Shard.suffix`.
        """
        self._given = folder, by, part
        self._folder, self._settings = folder, by.settings
        self._rows = SharedLedger(folder, ".hbr-restore", part)

    def __reduce__(self) -> tuple[type[ContentRecord], tuple[Path, ByContents, str]]:
        """Open the files anew in another process."""
        return ContentRecord, self._given

    def is_finished(self, source: Path, target: Path) -> bool:
        """Whether the output is there and was restored from what the input holds now."""
        try:
            if not target.stat().st_size or not source.is_file():  # reading a pipe would block
                return False
            self._rows.refresh()
            row = self._rows.find(self._name(target))
            if row is None or row.get("input_sha256") != sha256(source):
                return False
            if self._settings is None:
                return True
            made = (row.get("settings"), row.get("output_sha256"))
            return made == (self._settings, sha256(target))
        except OSError:
            return False

    def add(self, target: Path, contents: str) -> None:
        """Record an output that was just written.

        `contents` is the SHA-256 of the input, from before it was read.

        Raises:
            OSError: it cannot be written.
        """
        row = {"name": self._name(target), "input_sha256": contents, "settings": self._settings}
        self._rows.add({**row, "output_sha256": sha256(target)})

    def _name(self, target: Path) -> str:
        return target.relative_to(self._folder).as_posix()


def digest_of(model: str | None, **given: Any) -> str:
    """A digest of what an output depends on besides its input, files that settings name included.

    `model` is the SHA-256 of its weights; `given` are dataclasses and plain values.
    """
    plain = {
        name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
        for name, value in given.items()
    }
    for values in plain.values():
        for name in _NO_MATTER if isinstance(values, dict) else ():
            values.pop(name, None)
    named = _named_files(plain.get("settings") or {})
    plain |= {"named": named} if named else {}
    text = json.dumps({"hbr": __version__, "model": model, **plain}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _named_files(settings: dict[str, Any]) -> dict[str, str]:
    """The SHA-256 of the maps, boxes and model of the background that settings name, by path."""
    choice = settings.get("choice", {})
    people = choice.get("source")
    maps = (settings.get("pose"), settings.get("attention"))
    named = [Path(name) for name in (*maps, people, choice.get("background")) if name]
    if people and Path(people).is_dir():  # a text of YOLO for each photo
        named += Path(people).glob("*.txt")
    return {str(path): sha256(path) for path in named if path.is_file()}
