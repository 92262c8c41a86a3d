"""A model that changes nothing, and photos, for tests that run `hbr restore`."""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PHOTO = Path(__file__).parents[1] / "data" / "purple.jpg"

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
PR_CAPBSET_DROP = 24


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny one-step restorer whose output is its input."""
    import toy_models

    return toy_models.write_identity(tmp_path_factory.mktemp("models") / "toy.safetensors")


@pytest.fixture(scope="session")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny network of convolutions, whose process loads nothing large but torch."""
    import toy_models

    return toy_models.write_rrdbnet(tmp_path_factory.mktemp("models") / "light.safetensors")


@pytest.fixture(scope="session")
def photo() -> Callable[..., Path]:
    """Write a cut-out of a real photograph, another one for each `number`."""
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))

    def write(path: Path, number: int = 0, size: tuple[int, int] = (48, 40)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        top = number * 2 % (pixels.shape[0] - height + 1)
        Image.fromarray(pixels[top : top + height, :width]).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def bound_by_permissions() -> dict[str, Callable[[], None]]:
    """Options of a process that permission bits stop, also if it is root's."""

    def drop() -> None:
        # Gone with the execve that follows: root gets what its bounding set still holds.
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "root keeps its powers here")

    return {"preexec_fn": drop} if os.geteuid() == 0 else {}
