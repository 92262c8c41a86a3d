"""The paper's recipe from end to end: its stages and settings, with toy models and few photos."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from hbr.config import load_yaml
from hbr.curation.config import CurationConfig, MetricConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.pipeline.stages.quality import better, cheapest_first
from hbr.curation.runs.run import curate
from hbr.curation.sources.configs import CocoConfig, FolderConfig, VocConfig

RECIPE = Path(__file__).parents[2] / "src/hbr/recipes/curation/persona.yaml"
SMALL_BACKBONE = {
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage2", "stage3", "stage4"],
}
SMALL = {
    "d_model": 32,
    "num_queries": 2,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 32,
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "encoder_in_channels": [8, 16, 16],
    "decoder_in_channels": [32, 32, 32],
}


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    """An RT-DETR of random weights that sees nothing but people, two in each image."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(0)
    backbone = transformers.RTDetrResNetConfig(**SMALL_BACKBONE)
    config = transformers.RTDetrConfig(backbone_config=backbone, id2label={0: "person"}, **SMALL)
    model = transformers.RTDetrForObjectDetection(config)
    for name, parameter in model.named_parameters():
        if "bbox" in name and parameter.shape == (4,):
            parameter.data[2:] += 1  # half as wide and as tall as the image
    model.save_pretrained(folder)
    size = {"height": 64, "width": 64}
    told = {"do_normalize": False, "do_rescale": True, "resample": 2, "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))
    return folder


@pytest.fixture(scope="module")
def weights(call_hbr, shared: Path, tmp_path_factory) -> Path:
    """A folder with a model of NIQE, fitted to a few photos."""
    folder = tmp_path_factory.mktemp("weights")
    some = folder / "photos"
    some.mkdir()
    for path in sorted((shared / "photos/coco-cc/images").glob("*.jpg"))[:24]:
        (some / path.name).symlink_to(path.resolve())
    done = call_hbr("metrics", "fit-niqe", some, "-o", folder / "niqe.npz")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def recipe(shared: Path, detector: Path, coco: dict, tmp_path_factory) -> CurationConfig:
    """persona.yaml, but for where photos lie and what needs a download."""
    folder = tmp_path_factory.mktemp("sources")
    images = (shared / "photos/coco-cc/images").resolve()
    told = {**coco, "images": coco["images"][:60]}
    known = {image["id"] for image in told["images"]}
    told["annotations"] = [a for a in coco["annotations"] if a["image_id"] in known]
    (folder / "coco.json").write_text(json.dumps(told))
    (folder / "lsdir").mkdir()  # half of it are photos of the labelled source too
    for image in coco["images"][50:70]:
        (folder / "lsdir" / image["file_name"]).symlink_to(images / image["file_name"])
    voc = shared / "annotations/voc"
    config = load_yaml(CurationConfig, RECIPE)
    names = [m.name for m in config.quality.metrics]
    assert names == ["clipiqa", "maniqa", "musiq", "pyiqa-niqe", "pyiqa-brisque"]
    assert config.quality.eq1 == ("clipiqa", "maniqa", "musiq", "pyiqa-niqe")
    metrics = (
        MetricConfig("detail", 2.0),
        MetricConfig("niqe", 12.0),
        MetricConfig("contrast", 58.2),
        MetricConfig("noise", 8.0),
    )
    low = tuple(MetricConfig(n, ceiling=line) for n, line in (("detail", 1.9), ("noise", 0.1)))
    own = dataclasses.replace(config.limits["voc"], metrics=low, count=2)
    return dataclasses.replace(
        config,
        limits={"voc": own},
        sources=(
            CocoConfig(name="coco", annotations=folder / "coco.json", images=images),
            FolderConfig(name="lsdir", path=folder / "lsdir"),
            VocConfig(name="voc", annotations=voc / "xml", images=voc / "img"),
        ),
        boxes=dataclasses.replace(
            config.boxes,
            detector=dataclasses.replace(
                config.boxes.detector, name=str(detector), device="cpu", score=0.0
            ),
        ),
        quality=dataclasses.replace(
            config.quality, metrics=metrics, eq1=None, device="cpu", batch=4
        ),
    )


@pytest.fixture(scope="module")
def run(recipe: CurationConfig, weights: Path, tmp_path_factory):
    """What the recipe makes of the photos: folder, summary, records."""
    out = tmp_path_factory.mktemp("persona")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "HBR_WEIGHTS", str(weights))
        summary = curate(recipe, out, engine=LocalEngine(0))
    return out, summary, list(Manifest(out))


def test_the_stages_add_up_over_all_sources(run) -> None:
    out, summary, records = run
    assert summary.errors == 0
    assert summary.funnel[0].entered == len(records)
    for before, step in zip(summary.funnel, summary.funnel[1:], strict=False):
        assert step.entered == before.passed
    assert set(summary.sources) == {"coco", "lsdir", "voc"}
    assert summary.costs["detect"][0] == summary.sources["lsdir"]["images"] == 20
    assert all(told["rows"] >= told["images"] for told in summary.sources.values())
    assert summary.kept == len(list((out / "crops").rglob("*.png"))) > 3


def test_the_detector_looks_where_nobody_did(run) -> None:
    _, _, records = run
    found = {r.source for r in records if r.box_score is not None}
    assert found == {"lsdir"}
    assert all(r.label for r in records if r.x0 is not None)


def test_people_are_whole_but_for_those_of_voc(run) -> None:
    _, _, records = run
    cut = [r for r in records if r.square_side is not None]
    assert {r.source for r in cut} == {"coco", "lsdir", "voc"}
    for r in cut:
        wide, tall = r.x1 - r.x0, r.y1 - r.y0
        edge = min(wide, tall) if r.source == "voc" else max(wide, tall)
        assert r.square_side == int(np.ceil(edge - 1e-9))
        assert 0 <= r.square_x <= r.width - r.square_side
        assert 0 <= r.square_y <= r.height - r.square_side
        assert r.box_edge >= (128 if r.source == "voc" else 256)


def test_eq1_over_all_that_is_not_the_test_set(run, recipe: CurationConfig) -> None:
    """From the scores in the manifest alone: who is kept, until near-duplicates."""
    _, _, records = run
    quality = recipe.quality
    names = [m.name for m in cheapest_first(quality.metrics)]
    assert names == ["contrast", "detail", "noise", "niqe"]
    crops = [r for r in records if r.phash is not None]
    assert all(set(r.scores) == set(names) for r in crops)  # also of those that were stopped
    assert all(r.z_mean is None for r in crops if r.source == "voc")
    crops = [r for r in crops if r.source != "voc"]
    assert len(crops) > 12
    z = np.zeros(len(crops))
    for name in names:
        x = np.array([r.scores[name] for r in crops])
        sign = 1 if better(name) == "higher" else -1
        z += sign * (x - x.mean()) / x.std() / len(names)
    np.testing.assert_allclose([r.z_mean for r in crops], z, atol=1e-9)
    third = set(np.argsort(-z)[: int(np.ceil(len(crops) / 3))].tolist())
    limits = {m.name: m.threshold for m in quality.metrics}
    passed = {
        i
        for i, r in enumerate(crops)
        if all(
            r.scores[n] >= limits[n] if better(n) == "higher" else r.scores[n] <= limits[n]
            for n in names
        )
    }
    assert passed - third
    assert third - passed
    stopped = {i for i, r in enumerate(crops) if r.stage in ("quality", "eq1")}
    assert stopped == set(range(len(crops))) - (third & passed)


def test_the_test_set_is_of_low_quality(run, recipe: CurationConfig) -> None:
    """Every crop of PERSONA-Test is worse than its ceilings, and the published number is drawn."""
    _, summary, records = run
    ceilings = {m.name: m.ceiling for m in recipe.limits["voc"].metrics}
    crops = [r for r in records if r.source == "voc" and r.phash is not None]
    low = [
        r
        for r in crops
        if all(
            r.scores[n] <= line if better(n) == "higher" else r.scores[n] >= line
            for n, line in ceilings.items()
        )
    ]
    assert len(low) > 2
    assert len(low) < len(crops)
    kept = [r for r in crops if r.alive]
    assert len(kept) == summary.splits["test"] == 2
    assert {r.id for r in kept} < {r.id for r in low}
    assert {r.reason for r in low} == {None, "not-sampled"}
    assert {r.reason for r in crops if r not in low} == {"above-ceiling"}


def test_the_recipe_draws_3000_crops_below_what_training_must_reach() -> None:
    config = load_yaml(CurationConfig, RECIPE)
    own = config.limits["voc"]
    assert own.count == 3000
    assert config.splits.held_out == {"voc"}
    assert config.crop.partial == ("voc",)
    assert own.sharpness is not None
    assert own.sharpness.threshold == 0
    floors = {m.name: m.threshold for m in config.quality.metrics if m.threshold is not None}
    assert {m.name: m.ceiling for m in own.metrics or ()} == floors
    assert all(m.threshold is None for m in own.metrics or ())


def test_splits_share_no_image_and_voc_is_the_test(run) -> None:
    _, summary, records = run
    kept = [r for r in records if r.alive]
    assert set(summary.splits) == {"train", "val", "test"}
    assert {r.split for r in kept if r.source == "voc"} == {"test"}
    place: dict[str, set[str]] = {}
    for r in kept:
        place.setdefault(r.image_sha256, set()).add(r.split)
        place.setdefault(r.group, set()).add(r.split)
    assert all(len(splits) == 1 for splits in place.values())


def test_all_that_is_missing_is_told_at_once(call_hbr, shared: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "persona.yaml"
    nowhere = str(tmp_path / "no-such-detector")
    recipe.write_text(RECIPE.read_text().replace("name: rfdetr", f"name: {nowhere}"))
    photos = shared / "photos/coco-cc/images"
    command = ["curate", "run", recipe, "-i", photos, "-o", tmp_path / "out", "--workers", "1"]
    done = call_hbr(*command)
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    line = done.stderr.splitlines()[-1]
    assert nowhere in line
    for name in ("clipiqa", "maniqa", "musiq", "pyiqa-niqe", "pyiqa-brisque"):
        assert name in line
    assert not list((tmp_path / "out").rglob("*.parquet"))
