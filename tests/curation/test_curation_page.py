"""The report of a run: its numbers, and its page in a real browser."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from hbr.config import ConfigError
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.record import CurationError
from hbr.curation.runs.exporting import export
from hbr.curation.runs.report import write_report
from hbr.curation.runs.report.contents import BINS, Histogram, Sheet, collect
from hbr.curation.runs.report.figures import histogram_svg
from hbr.curation.runs.report.html import as_html
from hbr.curation.runs.run import curate
from hbr.curation.runs.run_folder import RunFolder
from hbr.curation.sources.base import Box, ImageRef, SourceImage
from opened_pages import opened

HOSTILE = '</style><img src=x onerror=alert(1)>"&'


@pytest.fixture(scope="module")
def out(photos, settings, listed, tmp_path_factory):
    """A run with a hostile name, an image that is not there, and one of another size."""
    folder = tmp_path_factory.mktemp("run")
    wrong = [
        dataclasses.replace(photos[0], key=HOSTILE, ref=ImageRef.file(folder / "nowhere.jpg")),
        dataclasses.replace(photos[1], key="other", width=7),
        SourceImage(source="coco", key="nobody", ref=photos[2].ref, boxes=()),
        dataclasses.replace(photos[3], licence=HOSTILE, boxes=(Box(0, 0, 9, 9, label=HOSTILE),)),
    ]
    curate(
        dataclasses.replace(settings, errors=0.1),
        folder / "out",
        engine=LocalEngine(workers=0),
        sources=[listed("coco", [*photos[4:30], *wrong])],
    )
    return folder / "out"


@pytest.fixture(scope="module")
def page_file(out):
    return write_report(RunFolder(out), out / "report.html")


def test_the_numbers_are_those_of_the_rows(out):
    records = list(Manifest(out))
    told = collect(RunFolder(out), kept=5, rejected=3)
    summary = told.summary
    alive = [r for r in records if r.alive]
    assert (summary.rows, summary.kept, summary.images) == (len(records), len(alive), 30)
    assert summary.errors == 2
    assert {r.key for r in told.problems} == {HOSTILE, "other"}
    assert summary.funnel[0].entered == summary.rows
    for before, step in zip(summary.funnel, summary.funnel[1:], strict=False):
        assert step.entered == before.passed == step.passed + sum(step.stopped.values())
    for h in told.histograms:
        own = h.column in ("sharpness", "box_edge", "z_mean")
        column = [getattr(r, h.column) if own else r.scores.get(h.column) for r in records]
        values = [v for v in column if v is not None]
        assert h.n == h.all.sum() == len(values)
        assert (
            h.n_kept
            == h.kept.sum()
            == sum(v is not None and r.alive for v, r in zip(column, records, strict=True))
        )
        assert h.total == pytest.approx(sum(values))
        if h.threshold is not None:
            sign = 1 if h.better == "higher" else -1
            assert h.passed == sum(sign * v >= sign * h.threshold for v in values)
    # sheets are the first by id of each reason, and count all of it
    groups = {(s.stage, s.reason, s.metric): s for s in told.sheets}
    assert sum(s.count for s in told.sheets) == len(records) - summary.errors
    kept = groups["splits", None, None]
    assert [r.id for r in kept.records] == [r.id for r in alive][:5]
    for (_, reason, metric), sheet in groups.items():
        if reason is not None:
            same = [r.id for r in records if r.reason == reason
                    and (metric is None or r.detail.startswith(metric))]  # fmt: skip
            assert (sheet.count, [r.id for r in sheet.records]) == (len(same), same[:3])
    assert sum(summary.licences.values()) == sum(summary.splits.values()) == summary.kept


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("above-ceiling", "detail is better than its ceiling"),
        ("below-threshold", "detail is on the wrong side of its threshold"),
    ],
)
def test_a_sheet_says_which_end_of_a_metric_stopped_its_crops(out, reason, says):
    told = collect(RunFolder(out), kept=1, rejected=1)
    record = dataclasses.replace(next(iter(Manifest(out))), stage="quality", reason=reason)
    sheet = Sheet(stage="quality", reason=reason, metric="detail", count=1, records=(record,))
    page = as_html(dataclasses.replace(told, sheets=(sheet,)), {record.id: "data:,"})
    assert says in page


def test_errors_that_are_not_listed_are_counted_with_entries_of_annotations(out):
    told = collect(RunFolder(out), kept=0, rejected=0)
    read, *others = told.summary.funnel
    read = dataclasses.replace(read, stopped={"entry": 250, "missing": 50})
    summary = dataclasses.replace(told.summary, errors=50, funnel=(read, *others))
    some = dataclasses.replace(told, summary=summary, problems=told.problems[:1])
    assert "1 of 300; the manifest has all" in as_html(some, {})
    assert "the manifest has all" not in as_html(told, {})


def test_values_beyond_the_ends_are_counted():
    h = Histogram(
        column="niqe",
        better="lower",
        threshold=2.0,
        logarithmic=False,
        edges=np.linspace(0, 4, BINS + 1),
    )
    h.add(np.array([-1.0, 1, 2, 3, 9, np.nan]), np.array([1, 1, 0, 0, 0, 1], bool))
    assert (h.n, h.n_kept, h.passed, h.below, h.above) == (5, 2, 3, 1, 1)
    assert (h.all[0], h.all[-1], h.all.sum()) == (1, 1, 5)
    svg = histogram_svg(h, 'a "title" & more')
    assert "≤ 2" in svg
    assert "&quot;title&quot; &amp; more" in svg


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page(out, page_file, browser, width, scheme):
    page = opened(browser, page_file, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    kept = sum(r.alive for r in Manifest(out))
    assert page.inner_text(".numbers li:nth-child(3) b") == str(kept)
    bars = [int(t.replace(",", "")) for t in page.locator("#funnel .bar b").all_inner_texts()]
    assert bars[-1] == kept
    lost = [int(t.replace("−", "")) for t in page.locator("#funnel ul b").all_inner_texts()]
    assert bars[0] - sum(lost) == kept
    assert page.locator(".histogram path.threshold").count() == 4
    assert page.evaluate(
        "[...document.querySelectorAll('.sheet img')].every(i => i.complete && i.naturalWidth > 60)"
    )
    assert page.locator("#kept .sheet figure").count() == min(kept, 48)
    assert page.locator("#errors tbody tr").count() == 2
    assert page.locator("img[src='x']").count() == 0
    assert page.wrong == []


def test_it_is_one_file_and_the_same_every_time(out, page_file, tmp_path):
    text = page_file.read_text()
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[\w./:]+""", text)
    assert set(outside) == {"src=x"}  # the hostile name, as text
    assert "default-src 'none'" in text
    assert "<script" not in text
    again = write_report(RunFolder(out), tmp_path / "again.html")
    assert again.read_text() == text


def test_an_unfinished_run_has_a_page_too(out, tmp_path, browser):
    """What a kill before the passes over the whole set leaves."""
    run = RunFolder(out)
    whole = {(r.id, r.sharpness) for r in run.rows()}
    (out / "manifest.parquet").rename(tmp_path / "manifest.parquet")
    try:
        broken = RunFolder(out)
        assert broken.manifest is None
        assert {(r.id, r.sharpness) for r in broken.rows()} == whole
        assert [r.id for r in broken.rows()] == sorted(i for i, _ in whole)
        page = opened(browser, write_report(broken, tmp_path / "part.html"))
        assert "has not finished" in page.inner_text(".warning")
        assert page.locator("#funnel .pending").count() == 3
        assert page.locator("#kept .sheet img").count() > 5
        assert page.wrong == []
    finally:
        (tmp_path / "manifest.parquet").rename(out / "manifest.parquet")


def test_crops_whose_files_were_removed_are_left_out(out, tmp_path):
    rejected = [r for r in Manifest(out) if r.phash and not r.alive]
    assert {r.id for r in rejected} == {*RunFolder(out).crop_files(rejected)} != set()
    (folder,) = out.glob("work/*/crops")
    folder.rename(tmp_path / "crops")
    try:
        assert RunFolder(out).crop_files(rejected) == {}
        with pytest.raises(CurationError, match=r"is not in .* any more"):
            RunFolder(out).crop_reader()(rejected[0])
        with pytest.raises(CurationError, match="remove what is left of that folder, and run it"):
            export(RunFolder(out), tmp_path / "export", "folder")
        assert not (tmp_path / "export" / "crops").exists()
        folder.mkdir()
        for file in (tmp_path / "crops").iterdir():
            (folder / file.name).write_bytes(file.read_bytes()[:10])
        with pytest.raises(CurationError, match=r"\.bin cannot be read: expected \d+ bytes at"):
            export(RunFolder(out), tmp_path / "export", "folder")
        shutil.rmtree(folder)
    finally:
        (tmp_path / "crops").rename(folder)


def test_a_bare_manifest_has_a_page_without_pictures(out, tmp_path):
    (tmp_path / "m.parquet").write_bytes((out / "manifest.parquet").read_bytes())
    text = write_report(RunFolder(tmp_path / "m.parquet"), tmp_path / "r.html").read_text()
    assert "their pictures are not at hand" in text
    assert "<img" not in text


def test_numbers_that_make_no_sense_are_refused(out, tmp_path):
    with pytest.raises(ConfigError, match="kept is -1"):
        write_report(RunFolder(out), tmp_path / "r.html", kept=-1)
    assert not (tmp_path / "r.html").exists()
