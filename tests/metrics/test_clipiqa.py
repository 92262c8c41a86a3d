"""CLIP-IQA with a small CLIP as transformers draws and writes it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hbr.metrics import MetricError, load_metric
from hbr.metrics.clipiqa import PROMPTS, ClipIQA
from toy_clip import write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(3, 3, 40, 52, generator=torch.Generator().manual_seed(0))


def test_it_is_torchmetrics_definition(folder: Path, pictures: Tensor) -> None:
    from torchmetrics.functional.multimodal import clip_iqa as theirs
    from transformers import CLIPModel, CLIPTokenizer

    ours = ClipIQA(folder)
    assert theirs._PROMPTS["quality"] == PROMPTS
    clip = CLIPModel.from_pretrained(folder)
    words = CLIPTokenizer.from_pretrained(folder)(list(PROMPTS), return_tensors="pt", padding=True)

    def tensor(found: object) -> Tensor:
        return getattr(found, "pooler_output", found)  # type: ignore[return-value]

    with torch.no_grad():
        anchors = tensor(clip.get_text_features(**words))
        seen = tensor(clip.get_image_features(ours.prepare(pictures)))
    anchors = anchors / anchors.norm(dim=-1, keepdim=True)
    seen = seen / seen.norm(dim=-1, keepdim=True)
    expected = theirs._clip_iqa_compute(seen, anchors, ["quality"])
    value = load_metric("clipiqa-vit", weights=folder)(pictures)
    torch.testing.assert_close(value.float(), expected, rtol=1e-3, atol=0)
    assert value.max() > 2 * value.min()  # drawn weights are sure of one prompt, not equally so


def test_pictures_are_prepared_as_clip_s_own_processor_does(folder: Path) -> None:
    ours = ClipIQA(folder)
    # no black nor white, where Pillow would cut the overshoot between the two directions
    levels = np.random.default_rng(0).integers(64, 192, (48, 64, 3), dtype=np.uint8)
    # 48 to 32 is 2/3, and so 64 to 42; then the middle 32 columns
    small = Image.fromarray(levels).resize((42, 32), Image.Resampling.BICUBIC).crop((5, 0, 37, 32))
    expected = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None] / 255
    found = ours.prepare(torch.from_numpy(levels).permute(2, 0, 1)[None] / 255)
    # and it rounds to 8 bits there
    torch.testing.assert_close(found * ours.std + ours.mean, expected, atol=1.5 / 255, rtol=0)


def test_its_version_names_the_weights(folder: Path, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(folder, other)
    first = load_metric("clipiqa-vit", weights=folder).info.version
    assert load_metric("clipiqa-vit", weights=other).info.version == first
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert load_metric("clipiqa-vit", weights=other).info.version != first


@pytest.mark.parametrize("case", ["none", "torn", "empty", "file"])
def test_no_clip_is_one_clear_line(case: str, folder: Path, tmp_path: Path) -> None:
    import shutil

    given = tmp_path / "clip"
    told = "does not hold a transformers CLIP model"
    if case == "none":
        given.mkdir()
        told = "`hbr fetch clip-vit-large-patch14`"
    elif case == "file":
        given.write_text("x")
        told = "takes the folder of a CLIP"
    else:
        shutil.copytree(folder, given)
        weights = given / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000]) if case == "torn" else weights.unlink()
    with pytest.raises(MetricError, match=told):
        load_metric("clipiqa-vit", weights=given)
