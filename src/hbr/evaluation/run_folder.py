"""The output folder of a benchmark run, and the names in it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from hbr.config import ConfigError, to_dict
from hbr.evaluation.benchmark_config import Benchmark
from hbr.files import write_text


def open_folder(benchmark: Benchmark, out: Path, *, resume: bool) -> None:
    """Create the run's folder, or check that it belongs to this benchmark.

    Raises:
        ConfigError: it contains something else, or a run while `resume` is false.
    """
    file = out / "benchmark.json"
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is not a folder; choose another output")
    if file.is_file():
        try:
            found = json.loads(file.read_text(encoding="utf-8")).get("name")
        except (ValueError, AttributeError):
            found = None
        if found != benchmark.name:
            raise ConfigError(f"{out}: holds a run of {found!r}; choose another output")
        if not resume:
            raise ConfigError(f"{out}: already contains a run; --resume continues it")
    elif out.is_dir() and any(out.iterdir()):
        raise ConfigError(f"{out}: holds other files; choose an empty folder, or a new one")
    values = {"name": benchmark.name, "config": to_dict(benchmark.config)}
    write_text(file, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def folder_name(name: str) -> str:
    """A unique folder name for a data set or method."""
    plain = re.sub(r"[^A-Za-z0-9.+-]", "_", name).strip(".") or "_"
    if plain == name:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def below(path: Path, folder: Path) -> Path:
    """A path relative to a folder; absolute if it is outside."""
    path, folder = path.absolute(), folder.absolute()
    return path.relative_to(folder) if path.is_relative_to(folder) else path
