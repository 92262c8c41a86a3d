"""What a run would do and how long it would take, from a sample of it."""

import pytest

from hbr.curation.config import (
    BoxesConfig,
    CurationConfig,
    DetectorConfig,
    LimitsConfig,
    MetricConfig,
    QualityConfig,
    SizeConfig,
)
from hbr.curation.runs.estimate import estimate_run, lines
from hbr.curation.sources.configs import CocoConfig, FolderConfig


def test_a_plan_of_photos(shared, tmp_path):
    coco = CocoConfig(annotations=shared / "photos/coco-cc/instances.json", name="coco")
    gone = FolderConfig(path=tmp_path / "gone")
    metrics = (MetricConfig("niqe"), MetricConfig("detail", 1.0))
    config = CurationConfig(
        sources=(coco, gone), size=SizeConfig(64), quality=QualityConfig(metrics=metrics)
    )
    plan = estimate_run(config, sample=8)
    there, missing = plan.sources
    assert (there.name, there.images, there.whole, there.labelled) == ("coco", 276, True, 1.0)
    assert missing.problem.endswith("gone: no such file or folder")
    assert plan.sample == 8
    stages = {stage.name: stage for stage in plan.stages}
    assert stages["read"].per_image == 1
    assert stages["detail"].per_image == stages["encode"].per_image == plan.crops / 8
    assert stages["detail"].measured
    assert not stages["niqe"].measured
    assert "hbr fetch niqe" in stages["niqe"].missing
    assert stages["niqe"].per_image == plan.passed / 8
    assert [s.name for s in plan.stages].index("niqe") < [s.name for s in plan.stages].index(
        "write"
    )
    assert len(plan.missing) == 2
    # twice the images take twice as long; two workers share what can be shared
    assert plan.hours(2_000_000, 1) == pytest.approx(2 * plan.hours(1_000_000, 1))
    assert plan.hours(10**6, 1) / 2 < plan.hours(10**6, 2) < plan.hours(10**6, 1)
    said = "\n".join(lines(plan, 1000, 2))
    assert "1,000 images on 2 processes" in said
    assert not list(tmp_path.iterdir())  # nothing is written


def test_sources_have_the_names_of_the_run(tmp_path, photo_file):
    for part in ("a", "b"):
        (tmp_path / part / "set").mkdir(parents=True)
        (tmp_path / part / "set" / "x.jpg").write_bytes(photo_file())
    sources = tuple(FolderConfig(path=tmp_path / part / "set") for part in ("a", "b"))
    plan = estimate_run(CurationConfig(sources=sources), sample=2)
    assert [source.name for source in plan.sources] == ["a-set", "b-set"]
    assert plan.sample == 2


def test_photos_without_boxes_are_told(shared):
    folder = FolderConfig(path=shared / "photos/clothing-co-parsing/val", name="val")
    plan = estimate_run(CurationConfig(sources=(folder,), boxes=BoxesConfig()), sample=2)
    said = "\n".join(lines(plan, None, 1))
    assert "100 images have no boxes and stop there: --detector" in said


def test_what_is_missing_is_told_and_the_rest_is_tried(shared):
    coco = CocoConfig(annotations=shared / "photos/coco-cc/instances.json", name="coco")
    metrics = (MetricConfig("niqe", 5.0), MetricConfig("detail", 1.0))
    config = CurationConfig(
        sources=(coco,),
        boxes=BoxesConfig(detector=DetectorConfig("no-such.onnx")),
        size=SizeConfig(64),
        quality=QualityConfig(metrics=metrics, eq1=("niqe",)),
        limits={"coco": LimitsConfig(metrics=metrics)},
        tagger="no.such:tagger",
    )
    plan = estimate_run(config, sample=4)
    missing = {stage.name: stage.missing for stage in plan.stages if not stage.measured}
    assert list(missing) == ["detect", "niqe", "tags"]
    assert "no-such.onnx" in missing["detect"]
    assert "'no.such:tagger' cannot be loaded" in missing["tags"]
    assert {"read", "crop", "detail", "write"} <= {s.name for s in plan.stages if s.measured}
    assert plan.crops >= plan.passed > 0
    assert plan.config == config
