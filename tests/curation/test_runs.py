"""Whole runs on real photos: the same bytes for any order, any workers, and after any kill."""

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hbr.config import ConfigError
from hbr.curation.config import (
    BoxesConfig,
    CurationConfig,
    DetectorConfig,
    LimitsConfig,
    MetricConfig,
    QualityConfig,
    SplitsConfig,
)
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.pipeline.chunk import Chunk, Task
from hbr.curation.pipeline.plan import write_plan
from hbr.curation.pipeline.store import Store, latest_config
from hbr.curation.record import CurationError, from_row
from hbr.curation.runs.exporting import export
from hbr.curation.runs.run import curate
from hbr.curation.runs.run_folder import RunFolder
from hbr.curation.sources.base import Box, ImageRef, SourceImage
from hbr.image import read_photo
from hbr.metrics.table import METRICS
from hbr.people.types import DetectorError

HERE = LocalEngine(workers=0)


@pytest.fixture(scope="module")
def undisturbed(photos, settings, tmp_path_factory, listed):
    """One process, one go."""
    out = tmp_path_factory.mktemp("undisturbed")
    summary = curate(settings, out, engine=HERE, sources=[listed("coco", photos)])
    return out, summary


def test_something_happens_at_every_stage(undisturbed) -> None:
    _, summary = undisturbed
    steps = {step.stage: step for step in summary.funnel}
    assert steps["read"].entered == summary.rows
    for before, step in zip(summary.funnel, summary.funnel[1:], strict=False):
        assert step.entered == before.passed
    for step in summary.funnel:
        assert step.entered == step.passed + sum(step.stopped.values())
    for stage in ("size", "quality", "eq1"):
        assert steps[stage].stopped, stage
    assert summary.kept == steps["splits"].passed == sum(summary.splits.values()) > 10
    assert summary.sources == {"coco": {"images": 48, "rows": summary.rows, "kept": summary.kept}}
    assert sum(summary.licences.values()) == summary.kept
    assert summary.costs["read"][0] == 48


def test_the_manifest_tells_the_summary(undisturbed) -> None:
    out, summary = undisturbed
    manifest = Manifest(out)
    records = list(manifest)
    assert len(manifest) == len(records) == summary.rows
    assert [r.id for r in records] == sorted(r.id for r in records)
    assert manifest.metrics == ["clipping", "detail", "noise"]
    assert "keypoints" not in manifest.names  # the source has none
    assert manifest.about["name"] == "some"
    kept = list(manifest.kept())
    assert len(kept) == summary.kept
    for record in kept:
        assert record.split in summary.splits
        assert record.licence
        assert record.group
    for record in records:
        assert record.alive == (record.reason is None) == (record.split is not None)
        assert record.alive or record.detail
    assert RunFolder(out).starting(records[3].id) == [records[3]]
    assert summary.means["detail"] == pytest.approx(np.mean([r.scores["detail"] for r in kept]))


def test_parts_from_before_the_column_of_key_points(undisturbed, tmp_path) -> None:
    out, _ = undisturbed
    shutil.copytree(out / "work", tmp_path / "work")
    store = Store(tmp_path, latest_config(tmp_path))
    whole = [from_row(row) for _, table in store.tables() for row in table.to_pylist()]
    for path in store.parts():
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["keypoints"]), path)
    again = [from_row(row) for _, table in store.tables() for row in table.to_pylist()]
    assert again == whole
    assert {r.keypoints for r in again} == {None}


def test_crops_are_those_squares_of_the_photos(undisturbed, photos) -> None:
    out, _ = undisturbed
    files = {image.key: image.ref.path for image in photos}
    for record in list(Manifest(out).kept())[:6]:
        path = out / "crops" / record.split / record.id[:2] / f"{record.id}.jpg"
        found = np.asarray(Image.open(path).convert("RGB")).astype(float)
        x, y, side = record.square
        whole = Image.open(files[record.key]).convert("RGB")
        expected = whole.crop((x, y, x + side, y + side)).resize(
            (512, 512), Image.Resampling.LANCZOS
        )
        assert np.abs(found - np.asarray(expected)).mean() < 2  # JPEG's loss
        assert path.stat().st_size == record.crop_size


def test_all_outputs_hold_the_same(undisturbed) -> None:
    out, summary = undisturbed
    kept = {r.id: r for r in Manifest(out).kept()}
    folder = {p.stem: p.read_bytes() for p in (out / "crops").rglob("*.jpg")}
    tars: dict[str, bytes] = {}
    for path in sorted((out / "shards").glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert len(names) <= 16
            assert names[::2] == [n.removesuffix(".json") + ".jpg" for n in names[1::2]]
            for name in names[::2]:
                tars[name[:-4]] = tar.extractfile(name).read()
                row = json.loads(tar.extractfile(name[:-4] + ".json").read())
                assert row["split"] == path.name.split("-")[0] == kept[row["id"]].split
    parquet = {}
    for path in (out / "data").glob("*.parquet"):
        for row in pq.read_table(path).to_pylist():
            parquet[row["id"]] = row["image"]["bytes"]
            assert row["score_detail"] == kept[row["id"]].scores["detail"]
    assert folder == tars == parquet
    assert set(folder) == set(kept)
    assert len(folder) == summary.kept
    card = (out / "README.md").read_text()
    assert f"| **splits** | {summary.kept} | {summary.kept} |" in card
    for licence, n in summary.licences.items():
        assert f"| {licence} | {n} |" in card


def test_any_order_any_workers_any_chunks(
    undisturbed, photos, settings, tmp_path, listed, digests
) -> None:
    out, summary = undisturbed
    shuffled = random.Random(1).sample(photos, len(photos))
    turned = [
        dataclasses.replace(image, boxes=image.boxes and image.boxes[::-1]) for image in shuffled
    ]
    other = dataclasses.replace(settings, chunk=7)
    again = curate(other, tmp_path, engine=LocalEngine(2), sources=[listed("coco", turned)])
    assert digests(tmp_path) == digests(out)
    assert again.as_json() == summary.as_json()


@pytest.mark.slow
def test_a_memory_cap_only_slows(photos, settings, tmp_path, listed, digests) -> None:
    few = [listed("coco", photos[:12])]
    curate(settings, tmp_path / "free", engine=HERE, sources=few)
    curate(settings, tmp_path / "tight", engine=LocalEngine(2, memory=1), sources=few)
    assert digests(tmp_path / "tight") == digests(tmp_path / "free")


def test_a_finished_run_only_passes_over_the_set_again(
    photos, settings, tmp_path, monkeypatch, listed, digests
) -> None:
    few = [listed("coco", photos[:10])]
    first = curate(settings, tmp_path, engine=HERE, sources=few)
    before = digests(tmp_path)

    def refuse(self, chunk, **_):
        raise AssertionError("done before")

    monkeypatch.setattr("hbr.curation.pipeline.chunk.ChunkWorker.__call__", refuse)
    again = curate(settings, tmp_path, engine=HERE, sources=few)
    assert digests(tmp_path) == before
    assert (again.rows, dict(again.costs)) == (first.rows, {})
    # Eq. 1's share is no setting of the parts
    quality = dataclasses.replace(settings.quality, top=0.3)
    strict = curate(
        dataclasses.replace(settings, quality=quality), tmp_path, engine=HERE, sources=few
    )
    assert strict.kept < first.kept
    assert strict.rows == first.rows
    # a threshold is
    metrics = tuple(dataclasses.replace(m, threshold=None) for m in quality.metrics)
    other = dataclasses.replace(quality, metrics=metrics)
    with pytest.raises(AssertionError, match="done before"):
        curate(dataclasses.replace(settings, quality=other), tmp_path, engine=HERE, sources=few)


def test_another_choice_of_sources_takes_over_what_fits(
    photos, settings, tmp_path, listed, digests
) -> None:
    one, two = listed("a", _named(photos[:6], "a")), listed("b", _named(photos[6:12], "b"))
    curate(settings, tmp_path / "x", engine=HERE, sources=[one, two])
    curate(settings, tmp_path / "x", engine=HERE, sources=[two])
    fresh = curate(settings, tmp_path / "y", engine=HERE, sources=[two])
    assert fresh.images == 6
    assert digests(tmp_path / "x") == digests(tmp_path / "y")


def test_a_source_may_be_fixed_to_a_split(photos, settings, tmp_path, listed) -> None:
    sources = [listed("a", _named(photos[:12], "a")), listed("voc", _named(photos[12:24], "voc"))]
    splits = SplitsConfig({"train": 0.5, "val": 0.5}, {"voc": "test"})
    curate(dataclasses.replace(settings, splits=splits), tmp_path, engine=HERE, sources=sources)
    found = {(r.source, r.split) for r in Manifest(tmp_path).kept()}
    assert found == {("a", "train"), ("a", "val"), ("voc", "test")}


def test_a_test_set_has_no_part_in_eq1_and_no_photo_in_training(
    photos, settings, tmp_path, listed
) -> None:
    """Its thresholds, ceilings and count are its own; what looks like it does not train."""
    quality = dataclasses.replace(settings.quality, all_scores=True, top=0.5)
    splits = SplitsConfig({"train": 0.5, "val": 0.5}, {"voc": "test"})
    own = LimitsConfig(metrics=(MetricConfig("detail", ceiling=2.2),), count=3)
    settings = dataclasses.replace(settings, quality=quality, splits=splits)
    with_test = dataclasses.replace(settings, limits={"voc": own})
    train, test = listed("a", _named(photos[:24], "a")), listed("voc", _named(photos[16:40], "voc"))
    curate(settings, tmp_path / "alone", engine=HERE, sources=[train])
    curate(with_test, tmp_path / "both", engine=HERE, sources=[train, test])
    alone = {r.id: r for r in Manifest(tmp_path / "alone")}
    both = {r.id: r for r in Manifest(tmp_path / "both")}
    tested = [r for r in both.values() if r.source == "voc" and r.alive]
    assert len(tested) == 3
    assert {r.split for r in tested} == {"test"}
    assert all(r.scores["detail"] <= 2.2 and r.z_mean is None for r in tested)
    reasons = {r.reason for r in both.values() if r.source == "voc"}
    assert {"above-ceiling", "not-sampled"} <= reasons
    assert "not-in-top" not in reasons
    held_out = {r.id for r in both.values() if r.reason == "held-out"}
    for crop, before in alone.items():
        after = both[crop]
        assert after.z_mean == before.z_mean
        if crop in held_out:
            assert before.alive
            assert any(r.group == after.group for r in tested)
        else:
            assert (after.reason, after.split) == (before.reason, before.split)
    hashes = {r.image_sha256 for r in tested}
    assert not hashes & {r.image_sha256 for r in both.values() if r.alive and r.source == "a"}
    again = curate(
        dataclasses.replace(with_test, splits=dataclasses.replace(splits, seed=1)),
        tmp_path / "both",
        engine=HERE,
        sources=[train, test],
    )
    assert again.splits["test"] == 3
    other = {r.id for r in Manifest(tmp_path / "both").kept() if r.source == "voc"}
    assert other != {r.id for r in tested}


def test_work_of_another_version_of_a_metric_is_not_taken_over(settings, tmp_path) -> None:
    quality = QualityConfig(metrics=(MetricConfig("detail"), MetricConfig("niqe")))
    config = dataclasses.replace(settings, quality=quality)
    now = Store(tmp_path, config).folder
    assert Store(tmp_path, config).folder == now
    older = dataclasses.replace(METRICS["niqe"], version="1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(METRICS, "niqe", older)
        assert Store(tmp_path, config).folder != now


def test_metrics_may_be_measured_without_a_part_in_eq1(photos, settings, tmp_path, listed) -> None:
    names = [m.name for m in settings.quality.metrics]
    few = [listed("coco", photos[:12])]
    quality = dataclasses.replace(settings.quality, all_scores=True, top=1.0, eq1=("detail",))
    settings = dataclasses.replace(settings, quality=quality)
    curate(settings, tmp_path, engine=HERE, sources=few)
    ranked = [r for r in Manifest(tmp_path) if r.z_mean is not None]
    assert all(set(r.scores) == set(names) for r in ranked)
    x = np.array([r.scores["detail"] for r in ranked])
    np.testing.assert_allclose([r.z_mean for r in ranked], (x - x.mean()) / x.std(), atol=1e-9)


def test_the_same_photo_in_two_sources_is_kept_once(photos, settings, tmp_path, listed) -> None:
    sources = [listed(name, _named(photos[:16], name)) for name in ("a", "b")]
    settings = dataclasses.replace(settings, quality=dataclasses.replace(settings.quality, top=1.0))
    summary = curate(settings, tmp_path, engine=HERE, sources=sources)
    records = list(Manifest(tmp_path))
    assert len(records) == len({r.id for r in records}) == 2 * summary.sources["a"]["rows"]
    lost = [r for r in records if r.reason == "near-duplicate"]
    assert len(lost) >= summary.kept > 0
    by_id = {r.id: r for r in records}
    for record in lost:
        winner = by_id[record.duplicate_of]
        assert winner.alive
        assert winner.group == record.group
    apart = dataclasses.replace(settings.duplicates, across=False)
    both = curate(
        dataclasses.replace(settings, duplicates=apart), tmp_path, engine=HERE, sources=sources
    )
    assert both.kept == 2 * summary.kept
    split = {}
    for record in Manifest(tmp_path).kept():  # still never in two splits
        assert split.setdefault(record.image_sha256, record.split) == record.split


def test_tags(photos, settings, tmp_path, listed) -> None:
    tagged = dataclasses.replace(settings, tagger=f"{__name__}:bright_or_dark")
    summary = curate(tagged, tmp_path, engine=HERE, sources=[listed("coco", photos[:12])])
    kept = list(Manifest(tmp_path).kept())
    assert {r.tags for r in kept} <= {("photo", "bright"), ("photo", "dark")}
    tags = {tag for r in kept for tag in r.tags}
    card = (tmp_path / "README.md").read_text()
    assert f"| some | {len(tags)} | {summary.kept * 2} | 2.00 |" in card
    assert "| PERSONA, as published | 3,365 | 1,452,088 | 13.32 |" in card
    assert "The most frequent: photo" in card
    assert "share of the tags" not in card

    table = tmp_path / "categories.tsv"
    table.write_text("photo\tkind\nbright\tlight\n", encoding="utf-8")
    again = dataclasses.replace(tagged, tag_categories=table)
    curate(again, tmp_path, engine=HERE, sources=[listed("coco", photos[:12])])
    card = (tmp_path / "README.md").read_text()
    bright = sum("bright" in r.tags for r in kept) / (2 * len(kept))
    assert "| kind | 50.0% |" in card
    assert f"| light | {bright:.1%} |" in card
    assert f"| other | {0.5 - bright:.1%} |" in card
    export(RunFolder(tmp_path), tmp_path / "set", "folder")
    assert (tmp_path / "set" / "README.md").read_text() == card
    for text, told in (("photo\n", "line 1"), ("a\tb\na\tc\n", "line 2")):
        table.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=f"categories.tsv, {told}"):
            curate(again, tmp_path, engine=HERE, sources=[listed("coco", photos[:12])])


def bright_or_dark():
    """A tagger that looks at the mean."""
    return lambda crops: [["photo", "bright" if c.mean() > 110 else "dark"] for c in crops]


def _named(images, name):
    return [dataclasses.replace(image, source=name) for image in images]


# kills


@pytest.fixture(scope="module")
def recipe(coco, shared, settings, tmp_path_factory):
    """Files for the real command: a recipe, and annotations of 24 photos."""
    folder = tmp_path_factory.mktemp("recipe")
    some = coco["images"][:24]
    ids = {image["id"] for image in some}
    part = {
        **coco,
        "images": some,
        "annotations": [a for a in coco["annotations"] if a["image_id"] in ids],
    }
    (folder / "some.json").write_text(json.dumps(part))
    photos = (shared / "photos/coco-cc/images").resolve()
    (folder / "some.yaml").write_text(
        "name: some\nchunk: 2\nsize: {longer: 128}\n"
        "quality: {top: 0.8, metrics: [{name: detail, threshold: 1.6}, {name: noise}]}\n"
        "output: {kinds: [folder, webdataset], format: jpeg}\n"
        f"sources: [{{kind: coco, name: coco, annotations: {folder / 'some.json'}, "
        f"images: {photos}}}]\n"
    )
    return folder / "some.yaml"


def start(hbr_command, recipe: Path, out: Path, workers: int = 2) -> subprocess.Popen:
    command = [*hbr_command, "curate", "run", str(recipe), "-o", str(out), "--workers"]
    command.append(str(workers))
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, text=True
    )


def parts(out: Path) -> dict[str, tuple[int, int]]:
    """What is recorded as done: name → inode and time of the file."""
    found = out.glob("work/*/parts/[!.]*.parquet")
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


@pytest.mark.slow
def test_twenty_kills_change_nothing(hbr_command, run_hbr, recipe, tmp_path, digests) -> None:
    done = run_hbr("curate", "run", recipe, "-o", tmp_path / "whole", "--workers", "1")
    assert done.returncode == 0, done.stderr
    expected = digests(tmp_path / "whole")
    assert len(expected) > 20
    rng = random.Random(20)
    moments: list[int] = []
    for workers in (1, 2):
        out = tmp_path / f"killed{workers}"
        recorded: dict[str, tuple[int, int]] = {}
        for kill in range(10):
            process = start(hbr_command, recipe, out, workers)
            # the first part is there when the processes have started: the kill comes after it
            goal = len(recorded) + (rng.randrange(3) if kill < 9 else 12)
            until = time.monotonic() + 120
            while len(parts(out)) < min(goal, 12) and process.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            _kill(process, one_worker=kill in (2, 5))
            process.communicate()
            _wait_for_group(process.pid)
            now = parts(out)
            moments.append(len(now))
            assert {name: now.get(name) for name in recorded} == recorded  # nothing done twice
            recorded = now
        done = run_hbr("curate", "run", recipe, "-o", out, "--workers", "1")
        assert done.returncode == 0, done.stderr
        now = parts(out)
        assert {name: now.get(name) for name in recorded} == recorded
        assert sum(pq.read_metadata(p).num_rows for p in out.glob("work/*/parts/*.parquet")) == sum(
            pq.read_metadata(p).num_rows for p in tmp_path.glob("whole/work/*/parts/*.parquet")
        )
        assert digests(out) == expected
        left = [p.name for p in out.rglob(".*")]
        assert not left
    assert len(set(moments)) > 4  # they came at different moments


def _kill(process: subprocess.Popen, one_worker: bool) -> None:
    workers = (
        psutil.Process(process.pid).children() if one_worker and process.poll() is None else []
    )
    workers = [w for w in workers if "spawn_main" in " ".join(w.cmdline())]
    if workers:
        workers[0].kill()
        process.wait(20)
    elif process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def _wait_for_group(group: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("somebody stayed behind")


@pytest.mark.slow
def test_orphans_leave_before_the_next_run_begins(
    hbr_command, call_hbr, recipe, tmp_path, digests
) -> None:
    """Only the parent dies; its workers end by themselves, and the next run waits for that."""
    process = start(hbr_command, recipe, tmp_path)
    while not parts(tmp_path):
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = call_hbr("curate", "run", recipe, "-o", tmp_path, "--workers", "2")
    assert done.returncode == 0, done.stderr
    _wait_for_group(process.pid)
    whole = tmp_path / "whole"
    assert call_hbr("curate", "run", recipe, "-o", whole).returncode == 0
    assert digests(tmp_path, without=("work", "whole")) == digests(whole)


def test_ctrl_c_leaves_what_is_done(hbr_command, recipe, tmp_path) -> None:
    process = start(hbr_command, recipe, tmp_path)
    while len(parts(tmp_path)) < 2:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert out == ""
    assert "stopped; the same command resumes: hbr curate run" in err
    assert "Traceback" not in err
    _wait_for_group(process.pid)
    assert len(parts(tmp_path)) >= 2
    assert not (tmp_path / "manifest.parquet").exists()


def test_a_lost_worker_is_one_line(hbr_command, recipe, tmp_path) -> None:
    process = start(hbr_command, recipe, tmp_path)
    while not parts(tmp_path):
        time.sleep(0.005)
    _kill(process, one_worker=True)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "hbr: a worker was killed (SIGKILL); what is done is kept" in err
    assert "Traceback" not in err


def test_two_runs_do_not_share_a_folder(photos, settings, tmp_path, listed) -> None:
    class Nested:
        check = HERE.check

        def run(self, config, out, plan):
            with pytest.raises(CurationError, match="another run works in it"):
                curate(settings, tmp_path, engine=HERE, sources=[listed("a", [])])
            yield from HERE.run(config, out, plan)

    curate(settings, tmp_path, engine=Nested(), sources=[listed("coco", photos[:3])])


def test_a_chunk_has_one_name_in_any_order(photos) -> None:
    tasks = [Task.of(image) for image in photos[:6]]
    assert Chunk.of(tasks).id == Chunk.of(tasks[::-1]).id != Chunk.of(tasks[:5]).id
    moved = dataclasses.replace(photos[0], ref=None)
    assert Task.of(moved).id == tasks[0].id
    other = dataclasses.replace(photos[0], boxes=())
    assert Task.of(other).id != tasks[0].id


def test_a_plan_gives_the_chunks_back_as_they_were(photos, tmp_path) -> None:
    tasks = [Task.of(image, repeat) for repeat in (0, 1) for image in photos]
    odd = ImageRef(
        path="/no/\udcff", offset=7, size=9, column="image", row=3, hub=("default", "train", "")
    )
    box = Box(
        float("-inf"),
        0.1,
        1e300,
        2,
        label="a \u2028 b",
        kind="head",
        score=0.5,
        crowd=True,
        ignore=True,
        normalised=True,
    )
    tasks.append(
        Task.of(
            SourceImage(
                source="a",
                key="b\\c",
                ref=odd,
                width=None,
                height=5,
                boxes=(box,),
                licence=None,
                attribution="ü",
                error="why",
                rotation=270,
            )
        )
    )
    tasks.append(Task.of(SourceImage(source="a", key="none", ref=None, boxes=())))
    plan = write_plan(tmp_path / "plan.parquet", iter(tasks), 3)
    assert len(plan) == 33
    chunks = list(plan)
    assert [task for chunk in chunks for task in chunk.tasks] == tasks
    assert [len(chunk.tasks) for chunk in chunks] == [3] * 32 + [2]
    assert [chunk.id for chunk in chunks] == [Chunk.of(chunk.tasks).id for chunk in chunks]
    assert pq.read_table(plan.path)["images"].to_pylist() == [3] * 32 + [2]
    assert len(write_plan(tmp_path / "plan.parquet", iter(()), 3)) == 0


def test_a_plan_takes_tasks_a_few_chunks_at_a_time(photos, tmp_path) -> None:
    tasks = (Task.of(dataclasses.replace(photos[0], key=str(i))) for i in range(1000))
    plan = write_plan(tmp_path / "plan.parquet", tasks, 2)
    assert pq.read_metadata(plan.path).num_row_groups == 32
    chunks = iter(plan)
    assert next(chunks).tasks[1].image.key == "1"
    assert len(list(chunks)) == 499


def test_rejected_crops_can_be_looked_at(undisturbed, settings) -> None:
    out, _ = undisturbed
    assert latest_config(out) == settings
    crops = Store(out, latest_config(out)).crops()
    stopped = {"eq1": 0, "quality": 0, "size": 0}
    for record in Manifest(out):
        data = crops.read(record.id)
        assert (data is None) == (record.crop_sha256 is None)
        if record.stage in stopped:
            stopped[record.stage] += data is not None
            if data is not None:
                assert Image.open(io.BytesIO(data)).size == (512, 512)
    assert stopped["eq1"] > 0
    assert stopped["quality"] > 0
    assert stopped["size"] == 0


def test_no_sources_is_a_clear_line(tmp_path, listed) -> None:
    with pytest.raises(CurationError, match="no sources"):
        curate(CurationConfig(), tmp_path, engine=HERE)
    twice = [listed("a", []), listed("a", [])]
    with pytest.raises(CurationError, match="two sources are called a"):
        curate(CurationConfig(), tmp_path, engine=HERE, sources=twice)


def test_a_folder_without_a_run_is_a_clear_line(tmp_path) -> None:
    with pytest.raises(CurationError, match="holds no run of hbr curate"):
        latest_config(tmp_path)
    with pytest.raises(CurationError, match="is not a manifest"):
        list(Manifest(tmp_path))


def test_a_detector_looks_where_nobody_did(photos, settings, tmp_path, listed, monkeypatch) -> None:
    """One that finds what the labels say, where images without boxes stand among others."""
    from hbr.people import detectors
    from hbr.people.types import People

    pixels = {}
    for image in photos[:8]:
        pixels[hash(read_photo(image.ref.path).pixels.tobytes())] = np.array(
            [b.in_pixels(1, 1) for b in image.boxes]
        )
    looked, asked = [], []

    def load_detector(name, **options):
        asked.append((name, options))

        def detect(images):
            looked.append(len(images))
            found = [pixels[hash(array.tobytes())] for array in images]
            return [People(boxes, np.full(len(boxes), 0.75)) for boxes in found]

        return detect

    monkeypatch.setattr(detectors, "load_detector", load_detector)
    detector = DetectorConfig("rtdetr", score=0.6, batch=3)
    config = dataclasses.replace(settings, boxes=BoxesConfig(detector=detector))
    blank = [
        dataclasses.replace(image, boxes=None) if i % 2 else image
        for i, image in enumerate(photos[:8])
    ]
    curate(config, tmp_path / "found", engine=HERE, sources=[listed("coco", blank)])
    curate(settings, tmp_path / "told", engine=HERE, sources=[listed("coco", photos[:8])])
    # before the sources are read, and to find people
    assert asked == [("rtdetr", {"device": "cpu", "threshold": 0.6, "batch_size": 3})] * 2
    assert sum(looked) == 4
    found, told = (list(Manifest(tmp_path / name)) for name in ("found", "told"))
    assert [dataclasses.replace(r, box_score=None) for r in found] == told
    assert {r.box_score for r in found} == {None, 0.75}


@pytest.mark.parametrize("workers", [0, 1])
def test_missing_weights_are_reported_before_the_sources_are_read(
    settings, tmp_path, listed, workers
) -> None:
    detector = DetectorConfig(str(tmp_path / "no-such-detector"))
    config = dataclasses.replace(settings, boxes=BoxesConfig(detector=detector))
    unread = listed("a", None)  # cannot be iterated
    with pytest.raises(DetectorError, match="no-such-detector"):
        curate(config, tmp_path, engine=LocalEngine(workers), sources=[unread])
    with pytest.raises(TypeError, match="NoneType"):
        curate(settings, tmp_path, engine=LocalEngine(workers), sources=[unread])


def test_missing_weights_are_one_line(call_hbr, shared, tmp_path) -> None:
    recipe = tmp_path / "far.yaml"
    recipe.write_text("boxes: {detector: {name: no-such-detector}}\n")
    source = shared / "photos/coco-cc/images"
    done = call_hbr("curate", "run", recipe, "-i", source, "-o", tmp_path / "out", "--workers", "1")
    assert done.returncode == 4
    assert "no-such-detector" in done.stderr
    assert "Traceback" not in done.stderr
