"""The second environment: optional packages on top of .venv, whose pins still hold."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_optional_packages_are_the_pinned_ones() -> None:
    for name, pinned in pins("constraints-extras.txt").items():
        assert version(name) == pinned, name


def test_what_lies_below_is_not_changed() -> None:
    for name in ("torch", "numpy", "transformers", "diffusers", "opencv-python-headless", "pillow"):
        assert version(name).split("+")[0] == pins("constraints.txt")[name]


@pytest.mark.parametrize(
    "package",
    [
        *("torchvision", "openvino", "rtmlib", "ultralytics"),
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("lpips", "piq", "pyiqa", "spandrel")),
        *(pytest.param(p, marks=pytest.mark.slow) for p in ("timm", "torch_fidelity")),
    ],
)
def test_every_package_can_be_imported_first(package: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {package}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_boxes_are_suppressed_as_by_hand() -> None:
    import torch
    import torchvision

    boxes = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 2.1], [5, 5, 6, 6], [1, 0, 3, 2]])
    scores = torch.tensor([0.1, 0.5, 0.3, 0.2])
    # 0 lies under 1 by 4 / 4.2; 3 shares 2 of 6 with it
    assert torchvision.ops.nms(boxes, scores, 0.5).tolist() == [1, 2, 3]
    assert torchvision.ops.nms(boxes, scores, 0.3).tolist() == [1, 2]
    assert torchvision.ops.nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_python_starts_without_torch() -> None:
    code = "import sys; print(*{'torch', 'torchvision', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()
