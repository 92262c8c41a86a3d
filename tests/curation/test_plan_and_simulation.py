"""What a run would cost: on a sample of it, and on a cluster that there is not."""

import pytest

from hbr.config import ConfigError
from hbr.curation.config import BoxesConfig, CurationConfig, MetricConfig, QualityConfig, SizeConfig
from hbr.curation.runs.plan import lines, make_plan
from hbr.curation.runs.simulation import Cluster, Costs, simulate
from hbr.curation.sources.configs import CocoConfig, FolderConfig


def test_a_plan_of_photos(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    coco = CocoConfig(annotations=shared / "photos/coco-cc/instances.json", name="coco")
    gone = FolderConfig(path=tmp_path / "gone")
    metrics = (MetricConfig("niqe"), MetricConfig("detail", 1.0))
    config = CurationConfig(
        sources=(coco, gone), size=SizeConfig(64), quality=QualityConfig(metrics)
    )
    plan = make_plan(config, sample=8)
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


def test_photos_without_boxes_are_told(shared):
    folder = FolderConfig(path=shared / "photos/clothing-co-parsing/val", name="val")
    plan = make_plan(CurationConfig(sources=(folder,), boxes=BoxesConfig()), sample=2)
    said = "\n".join(lines(plan, None, 1))
    assert "100 images have no boxes and stop there: --detector" in said


COSTS = Costs(cpu_ms=20, gpu_ms=0, crop_gpu_ms=0, crops=0.5, megabytes=0, driver_ms=0, row_ms=0,
              spread=0)  # fmt: skip


def test_a_simulation_by_hand():
    """12,800 images of 20 ms on 4 cores: 64 s, where nothing else costs."""
    out = simulate(12_800, COSTS, Cluster(1, cores=4, start=0))
    assert out.hours * 3600 == pytest.approx(64)
    assert out.bound_by == "cores"
    assert out.busy["cores"] == pytest.approx(1)
    # the last chunk of an odd number waits for no other: 5 chunks on 4 cores take two rounds
    assert simulate(5 * 128, COSTS, Cluster(1, 4, start=0)).hours * 3600 == pytest.approx(5.12)
    # one GPU for all crops
    slow = Costs(1, 0, 100, 0.5, 0, 0, 0, 0)
    out = simulate(12_800, slow, Cluster(1, cores=4, start=0))
    assert out.bound_by == "GPUs"
    assert out.hours * 3600 == pytest.approx(640, rel=0.01)
    # storage that all share does not grow with the cluster
    disk = Costs(1, 0, 0, 0.5, 1.0, 0, 0, 0)
    hours = [simulate(12_800, disk, Cluster(n, 4, storage=100, start=0)).hours for n in (1, 64)]
    assert hours[0] == pytest.approx(hours[1], rel=0.01)
    assert hours[0] * 3600 == pytest.approx(128, rel=0.02)


def test_more_machines_are_never_slower():
    costs = Costs(14, 0.2, 45, 0.5)
    hours = [simulate(200_000, costs, Cluster(n)).hours for n in (1, 2, 8, 64)]
    assert hours == sorted(hours, reverse=True)
    again = simulate(200_000, costs, Cluster(8))
    assert again.hours == hours[2]
    with pytest.raises(ConfigError, match="gpus is 0"):
        Cluster(0)
