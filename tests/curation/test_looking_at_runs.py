"""Runs looked at from outside: their story, their differences, their thresholds, their export."""

import dataclasses
import io
import json
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from hbr.config import from_dict, to_dict
from hbr.curation.config import CurationConfig, MetricConfig, QualityConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest, manifest_writer
from hbr.curation.pipeline.stages.sharpness import laplacian_variance
from hbr.curation.record import REASONS, CurationError, Record
from hbr.curation.runs import thresholds
from hbr.curation.runs.difference import DiffTotals, compare_rows, compare_settings
from hbr.curation.runs.explanation import draw, explain, find_rows
from hbr.curation.runs.exporting import card_of, export
from hbr.curation.runs.photos import FoundPhoto, photos_of
from hbr.curation.runs.run import RunProgress, curate
from hbr.curation.runs.run_folder import RunFolder
from hbr.curation.runs.status import StatusFile, read_status
from hbr.curation.sources.configs import CocoConfig, FolderConfig

HERE = LocalEngine(workers=0)


@pytest.fixture(scope="module")
def recipe(shared, settings, tmp_path_factory) -> CurationConfig:
    """24 of the photos of coco-cc, by their COCO file."""
    told = json.loads((shared / "photos/coco-cc/instances.json").read_text())
    images = told["images"][:24]
    names = {image["id"] for image in images}
    some = [a for a in told["annotations"] if a["image_id"] in names]
    path = tmp_path_factory.mktemp("recipe") / "some.json"
    path.write_text(json.dumps({**told, "images": images, "annotations": some}))
    source = CocoConfig(annotations=path, images=shared / "photos/coco-cc/images", name="coco")
    return dataclasses.replace(settings, sources=(source,))


@pytest.fixture(scope="module")
def out(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "out"
    status = StatusFile(folder)
    with status.recording():
        curate(recipe, folder, engine=HERE, report=status)
    return folder


@pytest.fixture(scope="module")
def stricter(recipe, tmp_path_factory):
    """The same, with another line for one metric and for Eq. 1, and one photo fewer."""
    folder = tmp_path_factory.mktemp("stricter") / "out"
    metrics = (MetricConfig("detail", 2.2), MetricConfig("noise"), MetricConfig("clipping", 0.25))
    new = dataclasses.replace(recipe, quality=QualityConfig(metrics=metrics, top=1.0))
    curate(new, folder, engine=HERE)
    return folder


def test_the_story_of_every_row_says_what_its_columns_say(out):
    run = RunFolder(out)
    for record in run.rows():
        text = "\n".join(explain(run, record))
        assert record.id in text
        assert ("kept, in split" in text) == record.alive
        # the line that stopped it is the one that says NO
        if record.reason in ("blurred", "small", "below-threshold"):
            assert "NO" in text or record.detail.startswith("shorter edge")
        elif record.alive:
            assert "NO" not in text
        for name, value in record.scores.items():
            assert f"{name:<11}{value:.4g} (" in text


def test_rows_are_found_by_id_and_by_photo(out):
    run = RunFolder(out)
    records = list(run.rows())
    assert find_rows(run, records[5].id) == [records[5]]
    assert find_rows(run, records[5].id[:12]) == [records[5]]
    assert find_rows(run, records[5].key) == [records[5]]
    assert find_rows(run, f"coco/{records[5].key}") == [records[5]]
    assert len(find_rows(run, "")) == 10
    with pytest.raises(CurationError, match="no row's id starts with nothing"):
        find_rows(run, "nothing")


def test_rows_of_another_source_and_long_names_of_metrics(tmp_path):
    rows = [
        Record(id=f"{i:016x}", source=source, key="x.jpg", image_id=f"{i:016x}")
        for i, source in enumerate(("one", "two", "three"))
    ]
    rows[0] = rows[0].passed("splits", split="val", scores={"maniqa-pipal": 0.7, "niqe": 3.0})
    path, metrics = tmp_path / "m.parquet", ["maniqa-pipal", "niqe"]
    with manifest_writer(path, metrics, {}, keypoints=False) as write:
        write(rows)
    run = RunFolder(path)
    assert find_rows(run, "two/x.jpg") == [rows[1]]
    assert find_rows(run, "x.jpg") == find_rows(run, "elsewhere/x.jpg") == rows
    text = "\n".join(explain(run, rows[0]))
    assert "maniqa-pipal 0.7 (no threshold)\nniqe       3 (no threshold)" in text


def test_the_picture_shows_the_photo_and_its_boxes(out, tmp_path):
    run = RunFolder(out)
    record = next(run.manifest.kept())
    ((_, found),) = photos_of(run.config, [record])
    assert found.pixels.shape[:2] == (record.height, record.width)
    path = draw(run, record, [record], found, tmp_path / "a.png")
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    orange = np.argwhere((abs(pixels - (255, 176, 0)) < 8).all(axis=2))
    scale = min(760 / record.width, 760 / record.height)
    top, left = orange.min(axis=0)
    assert left == pytest.approx(24 + record.x0 * scale, abs=3)
    assert top == pytest.approx(90 + record.y0 * scale, abs=3)
    # without the photo, it says so and is still drawn
    without = draw(run, record, [], FoundPhoto(None, why="gone"), tmp_path / "b.png")
    assert Image.open(without).size[0] > 760


def test_a_photo_that_changed_is_not_shown_as_the_old_one(out, recipe):
    record = next(RunFolder(out).manifest.kept())
    other = dataclasses.replace(record, image_sha256="0" * 64)
    ((_, found),) = photos_of(recipe, [other])
    assert (found.pixels, found.why) == (None, "the photo is another one now")
    ((_, found),) = photos_of(recipe, [dataclasses.replace(record, key="never")])
    assert found.why == "the sources do not name it any more"
    gone = dataclasses.replace(recipe.sources[0], labels=Path("gone.yaml"))
    ((_, found),) = photos_of(dataclasses.replace(recipe, sources=(gone,)), [record])
    assert found.why.startswith("gone.yaml: ")
    # a source that is gone costs its own photos alone
    two = (FolderConfig(path=Path("nowhere"), name="gone"), *recipe.sources)
    lost = dataclasses.replace(record, source="gone")
    both = dataclasses.replace(recipe, sources=two)
    (one, found), (other, why) = photos_of(both, [lost, record])
    assert (one, found.sha256) == (record, record.image_sha256)
    assert (other, why.why) == (lost, "nowhere: no such file or folder")


def test_differences_add_up(out, stricter):
    one, other = RunFolder(out), RunFolder(stricter)
    assert compare_settings(one, other) == {
        "stages.metrics[detail].threshold": (1.6, 2.2),
        "quality.metrics[detail].threshold": (1.6, 2.2),
        "quality.top": (0.8, 1.0),
    }
    totals = DiffTotals()
    changes = list(compare_rows(one, other, totals))
    a, b = ({r.id: r for r in run.rows()} for run in (one, other))
    kept = [{i for i, r in rows.items() if r.alive} for rows in (a, b)]
    assert totals.rows == (len(a), len(b))
    assert totals.kept == (len(kept[0]), len(kept[1]))
    assert {c.id for c in changes if c.kind == "lost"} == kept[0] - kept[1] != set()
    assert {c.id for c in changes if c.kind == "gained"} == kept[1] - kept[0] != set()
    assert totals.kept[0] + totals.kinds["gained"] - totals.kinds["lost"] == totals.kept[1]
    for c in changes:
        if c.kind == "lost":
            assert (c.before, c.after) == ("kept", b[c.id].reason)
            assert c.detail == b[c.id].detail
    same = DiffTotals()
    assert list(compare_rows(one, one, same)) == []
    assert (same.kept_by_both, same.ways) == (len(kept[0]), {})


def test_a_run_that_has_not_finished_differs_by_what_is_to_come(out, tmp_path):
    manifest = out / "manifest.parquet"
    manifest.rename(tmp_path / manifest.name)
    try:
        totals, part = DiffTotals(), RunFolder(out)
        changes = list(compare_rows(RunFolder(tmp_path / manifest.name), part, totals))
    finally:
        (tmp_path / manifest.name).rename(manifest)
    later = {"not-in-top", "near-duplicate"}
    stopped = sum(r.reason in later for r in Manifest(out))
    assert totals.kinds == {"gained": stopped}
    assert stopped == len(changes) > 0
    assert {(c.before, c.after) for c in changes} <= {(reason, "kept") for reason in later}


def test_an_unfinished_run_has_the_rows_of_its_sources_alone(out, tmp_path):
    """Also where they cannot be opened any more."""
    shutil.copytree(out / "work", tmp_path / "work")
    assert RunFolder(tmp_path).counts().total() == 24
    file = tmp_path / "work" / "config.json"
    values = json.loads(file.read_text())
    values["sources"][0] |= {"name": "other", "annotations": "nowhere.json"}
    file.write_text(json.dumps(values))
    assert RunFolder(tmp_path).counts().total() == 0


def test_a_row_that_only_one_run_has_is_a_difference(out, recipe, tmp_path, listed, photos):
    fewer = tmp_path / "fewer"
    curate(recipe, fewer, engine=HERE, sources=[listed("coco", photos[:20])])
    totals = DiffTotals()
    changes = list(compare_rows(RunFolder(out), RunFolder(fewer), totals))
    assert totals.rows == (24, 20)
    assert sum(c.after == "not there" for c in changes) == 4
    assert sum(c.before == "not there" for c in changes) == 0


def test_thresholds_for_a_count_keep_it_when_they_are_used(out, recipe, tmp_path):
    """The way round: found on a run without lines, written as YAML, run with them."""
    names = ("detail", "noise", "clipping")
    quality = QualityConfig(metrics=tuple(map(MetricConfig, names)), all_scores=True)
    open_run = tmp_path / "open"
    curate(dataclasses.replace(recipe, quality=quality), open_run, engine=HERE)
    scores = thresholds.scores_of(RunFolder(open_run))
    found = thresholds.for_wanted(scores, 9, top=1.0)
    values = yaml.safe_load(thresholds.as_yaml(found))["quality"]["metrics"]
    assert {v["name"]: v["threshold"] for v in values} == pytest.approx(dict(found.values))
    metrics = tuple(MetricConfig(**value) for value in values)
    done = curate(
        dataclasses.replace(recipe, quality=QualityConfig(metrics=metrics)),
        tmp_path / "then",
        engine=HERE,
    )
    passed = next(step.passed for step in done.funnel if step.stage == "quality")
    assert passed == found.kept >= 9


def test_thresholds_of_a_reference_set(out, tmp_path):
    run = RunFolder(out)
    of_run = thresholds.read_reference(out, ["detail", "clipping"])
    kept = list(run.manifest.kept())
    assert sorted(of_run["detail"]) == sorted(r.scores["detail"] for r in kept)
    # the same crops as files have the same scores, but for JPEG, and what cannot be read is told
    for record in kept[:5]:
        (tmp_path / f"{record.id}.jpg").write_bytes(run.crop_files([record])[record.id])
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    said = []
    of_files = thresholds.read_reference(tmp_path, ["detail"], said.append)
    expected = sorted(r.scores["detail"] for r in kept[:5])
    assert sorted(of_files["detail"]) == pytest.approx(expected, abs=0.05)
    assert any("bad.jpg: left out" in line for line in said)
    found = thresholds.for_set(thresholds.scores_of(run, ("detail",)), of_run, 0.9, "it")
    assert np.mean(of_run["detail"] >= found.values["detail"]) >= 0.9
    with pytest.raises(CurationError, match="has no scores called niqe"):
        thresholds.scores_of(run, ("niqe",))
    with pytest.raises(CurationError, match="which have no box_edge; name a run"):
        thresholds.read_reference(tmp_path, ["box_edge"])


def test_a_reference_set_is_as_sharp_as_the_run_would_see_it(out, tmp_path, photo_file):
    (tmp_path / "large.png").write_bytes(photo_file(size=(1200, 800), format="PNG"))
    grey = cv2.cvtColor(cv2.imread(str(tmp_path / "large.png")), cv2.COLOR_BGR2GRAY)
    for edge in (RunFolder(out).sharpness_edge, 0, 256):
        (found,) = thresholds.read_reference(tmp_path, ["sharpness"], edge=edge)["sharpness"]
        assert found == laplacian_variance(grey, edge)


@pytest.mark.parametrize("value", [0.1234567, -3.987654321, 1e-7, 123456789.0, 0.0, 5.0])
@pytest.mark.parametrize("side", ["higher", "lower"])
def test_short_thresholds_let_pass_what_passed(value, side):
    short = thresholds.round_towards(value, side)
    assert short <= value if side == "higher" else short >= value
    assert short == pytest.approx(value, rel=2e-5)


def test_every_kind_of_export_holds_the_kept_crops(out, tmp_path):
    run = RunFolder(out)
    kept = {r.id: r for r in run.manifest.kept()}
    files = run.crop_files(list(kept.values()))
    folder = export(run, tmp_path / "f", "folder")
    assert {p.stem: p.read_bytes() for p in folder.rglob("*.jpg")} == files
    tars = export(run, tmp_path / "w", "webdataset", shard=5)
    there = {}
    for path in sorted(tars.glob("*.tar")):
        with tarfile.open(path) as tar:
            names = tar.getnames()
            assert len(names) <= 10
            there |= {n[:16]: tar.extractfile(n).read() for n in names if n.endswith(".jpg")}
    assert there == files
    tables = export(run, tmp_path / "p", "parquet")
    rows = [row for path in tables.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert {r["id"]: r["image"]["bytes"] for r in rows} == files
    assert Image.open(io.BytesIO(rows[0]["image"]["bytes"])).size == (512, 512)
    for where in "fwp":
        card = (tmp_path / where / "README.md").read_text()
        assert card == (out / "README.md").read_text()
        manifest = tmp_path / where / "manifest.parquet"
        assert manifest.read_bytes() == (out / "manifest.parquet").read_bytes()
        assert RunFolder(manifest).name == "some"
    with pytest.raises(CurationError, match="is there already; --overwrite"):
        export(run, tmp_path / "f", "folder")
    for overwrite in (False, True):
        with pytest.raises(CurationError, match="own folder"):
            export(run, out, "folder", overwrite=overwrite)
    with pytest.raises(CurationError, match="not the folder of a finished run"):
        export(RunFolder(tmp_path / "f" / "manifest.parquet"), tmp_path / "x", "folder")
    export(run, tmp_path / "f", "folder", overwrite=True)
    with pytest.raises(CurationError, match="has no work folder"):
        export(RunFolder(tmp_path / "f"), tmp_path / "x", "folder")
    assert card_of("some", Manifest(out), (512, 512)) == (out / "README.md").read_text()


def test_the_journal_tells_where_a_run_is(out, tmp_path):
    entry = read_status(out)
    assert (entry.state, entry.images, entry.alive) == ("done", 24, False)
    assert from_dict(type(entry), to_dict(entry)) == entry
    status = StatusFile(tmp_path)
    status(RunProgress(doing="crops", done=10, images=10))
    during = read_status(tmp_path)
    assert during.alive
    assert during.pace > 0
    with pytest.raises(ValueError, match="too many"), status.recording():
        raise ValueError("too many\nerrors")
    after = read_status(tmp_path)
    assert (after.state, after.why, after.alive) == ("failed", "too many errors", False)
    # a killed run cannot tell; its process does
    killed = dataclasses.replace(during, pid=2**22 + 1)
    assert not killed.alive
    (tmp_path / "work" / "progress.json").write_text('{"state": ')
    assert read_status(tmp_path) is None


def test_what_holds_no_run_is_refused(tmp_path):
    with pytest.raises(CurationError, match="holds no run of hbr curate"):
        RunFolder(tmp_path)
    with pytest.raises(CurationError, match="no such file or folder"):
        RunFolder(tmp_path / "nowhere")
    (tmp_path / "no.parquet").write_text("no table")
    with pytest.raises(CurationError, match="is not a manifest of hbr curate"):
        RunFolder(tmp_path / "no.parquet")


def test_the_guide_names_every_column_stage_and_reason():
    text = (Path(__file__).parents[2] / "docs/curation.md").read_text()
    columns = {f.name for f in dataclasses.fields(Record)} - {"scores"}
    names = columns | set(REASONS) | {r for reasons in REASONS.values() for r in reasons}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
