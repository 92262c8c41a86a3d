"""What numbers were made with: machine, versions, commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

from hbr.devices import processor_model
from hbr.processes import cores
from hbr.version import installed_version

_LIBRARIES = (
    "torch",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "torchmetrics",
    "pyiqa",
    "torch-fidelity",
)


def machine() -> dict[str, Any]:
    """Processor, cores, system, and the versions of the libraries that make numbers."""
    return {
        "cpu": processor_model(),
        "cores": cores(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: found for name in _LIBRARIES if (found := installed_version(name)) is not None},
    }


def commit() -> str | None:
    """The commit of the source, `-dirty` behind it if it was changed; None outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
