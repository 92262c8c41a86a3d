"""Taggers of crops by configuration: RAM and RAM++ from their checkpoints, CLIP over a list."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import toy_tagger
from hbr.config import ConfigError, from_dict, to_dict
from hbr.curation.config import CurationConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.pipeline.store import per_image_settings
from hbr.curation.runs.run import curate
from hbr.curation.tagging import (
    ClipTaggerConfig,
    RamTaggerConfig,
    load_tagger,
    read_categories,
    shares,
)
from hbr.models.importing.tagger import import_tagger
from hbr.models.tagger import Tagger
from hbr.weights import WeightsError
from toy_clip import write_clip


def crops(n: int, size: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size, size, 3), np.uint8) for _ in range(n)]


def test_a_mapping_names_a_model_and_a_text_a_function() -> None:
    for value in ({"kind": "ram"}, {"kind": "clip", "tags": "tags.txt"}, "package.module:function"):
        config = from_dict(CurationConfig, {"tagger": value})
        again = from_dict(CurationConfig, to_dict(config))
        assert again == config
    assert isinstance(
        from_dict(CurationConfig, {"tagger": {"kind": "ram"}}).tagger, RamTaggerConfig
    )
    for value, told in (
        ({"kind": "yolo"}, "tagger.kind is 'yolo'"),
        ({"kind": "clip"}, "tags"),
        ({"kind": "clip", "tags": "x", "prompt": "a photo"}, r"\{tag\}"),
        ({"kind": "ram", "batch": 0}, "batch"),
        ("no colon", "tagger"),
        (".relative:tagger", "package.module:function"),
    ):
        with pytest.raises(ConfigError, match=told):
            from_dict(CurationConfig, {"tagger": value})


def test_work_is_taken_over_from_another_device() -> None:
    one, other = (
        per_image_settings(CurationConfig(tagger=RamTaggerConfig(device=d, batch=b)))
        for d, b in (("cpu", 1), ("cuda", 16))
    )
    assert one == other
    assert one != per_image_settings(CurationConfig(tagger=RamTaggerConfig(weights=Path("x"))))


@pytest.mark.parametrize("write", [toy_tagger.write_ram, toy_tagger.write_ram_plus])
def test_ram_tags_the_crops_of_a_run(write, shared, tmp_path, photos, settings, listed) -> None:
    file = write(tmp_path / "ram", shared / "goldens")
    tagged = dataclasses.replace(settings, tagger=RamTaggerConfig(weights=file, batch=4))
    curate(tagged, tmp_path / "out", engine=LocalEngine(0), sources=[listed("coco", photos[:12])])
    kept = list(Manifest(tmp_path / "out").kept())
    assert len(kept) > 2
    assert {tag for r in kept for tag in r.tags} <= {*toy_tagger.TAGS}
    config, tensors = import_tagger(file)
    tagger = Tagger(config)
    tagger.load_state_dict(tensors)
    load = load_tagger(RamTaggerConfig(weights=file, batch=4))
    pixels = crops(5)
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    expected = [list(tags) for tags in tagger.tags(images)]
    assert load(pixels) == expected
    assert any(expected)


def test_a_tagger_is_not_asked_about_no_crops(
    tmp_path, monkeypatch, photos, settings, listed
) -> None:
    own = "def load():\n    return lambda crops: crops[0].any() and [['seen']] * len(crops)\n"
    (tmp_path / "own_tagger.py").write_text(own)
    monkeypatch.syspath_prepend(tmp_path)
    tagged = dataclasses.replace(settings, tagger="own_tagger:load", errors=1)
    nobody = dataclasses.replace(photos[0], key="nobody", boxes=())
    source = listed("coco", [nobody, *photos[1:6]])
    curate(tagged, tmp_path / "out", engine=LocalEngine(0), sources=[source])
    assert {r.tags for r in Manifest(tmp_path / "out").kept()} == {("seen",)}


def test_missing_weights_and_lists_are_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="hbr fetch ram-swin-l"):
        load_tagger(RamTaggerConfig())
    (tmp_path / "tags.txt").write_text("\n")
    for tags, told in (("none.txt", "No such file"), ("tags.txt", "has no tag")):
        with pytest.raises(WeightsError, match=f"tagger.tags: .*{told}"):
            load_tagger(ClipTaggerConfig(tags=tmp_path / tags))
    (tmp_path / "tags.txt").write_text("a\n")
    with pytest.raises(WeightsError, match="is not a CLIP"):
        load_tagger(ClipTaggerConfig(tags=tmp_path / "tags.txt", weights=tmp_path))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def test_clip_gives_the_tags_that_are_most_similar(clip: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    names = ["man", "umbrella", "sky", "red carpet", "dog"]
    (tmp_path / "tags.txt").write_text("\n".join([*names, "", "man"]) + "\n")
    settings = ClipTaggerConfig(
        tags=tmp_path / "tags.txt", weights=clip, threshold=-1.0, top=3, batch=2
    )
    pixels = crops(3, 32)  # as large as the network takes them: nothing is resized
    model = CLIPModel.from_pretrained(clip).eval()
    words = CLIPTokenizer.from_pretrained(clip)(
        [f"a photo of {name}." for name in names], return_tensors="pt", padding=True
    )
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        found = model(pixel_values=(images - mean) / std, **words)
        similar = found.logits_per_image / model.logit_scale.exp()
    expected = [[names[i] for i in row.argsort(descending=True)[:3]] for row in similar]
    assert load_tagger(settings)(pixels) == expected
    line = float(similar[0].sort(descending=True).values[:2].mean())  # between the first two
    strict = load_tagger(dataclasses.replace(settings, threshold=line))(pixels)
    assert strict[0] == expected[0][:1]
    assert load_tagger(settings)(pixels[1:2]) == expected[1:2]
    assert load_tagger(settings)([]) == []


def test_shares_of_categories() -> None:
    tags = {"man": 3, "dog": 1, "hat": 4, "?": 2}
    categories = {"man": "people", "hat": "clothing", "dog": "animals", "cat": "animals"}
    found = shares(tags, categories)
    assert list(found.items()) == [
        ("clothing", 0.4),
        ("people", 0.3),
        ("other", 0.2),
        ("animals", 0.1),
    ]
    assert shares({}, categories) == {}


def test_a_table_of_categories_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "categories.txt"
    file.write_text("man\tpeople\n\nred hat\tclothing\n", encoding="utf-8-sig")
    assert read_categories(file) == {"man": "people", "red hat": "clothing"}
