"""Tests of what needs optional packages: skipped in .venv, run by `make test-extras`."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ["YOLO_OFFLINE"] = "1"
os.environ["YOLO_AUTOINSTALL"] = "false"

PACKAGES = ("torchvision", "pyiqa")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder, and skip them where the optional packages are not.

    Where they are, a test that misses one of them fails: imports stand inside the tests.
    """
    here = Path(__file__).parent
    missing = [name for name in PACKAGES if find_spec(name) is None]
    for item in items:
        if here not in item.path.parents:
            continue
        item.add_marker(pytest.mark.extras)
        if missing:
            reason = f"needs optional packages ({', '.join(missing)}): make test-extras"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def own_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches and settings that packages write go where the test ends."""
    for name in ("TORCH_HOME", "YOLO_CONFIG_DIR", "HBR_WEIGHTS", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
