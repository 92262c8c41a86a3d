"""`hbr restore --report`: the page of a batch, in a real browser, and what is in it."""

import dataclasses
import itertools
import json
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hbr.image import Photo
from hbr.restoration.batch.jobs import Job
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.report import collecting
from hbr.restoration.report.collecting import BatchReport
from hbr.restoration.report.html import as_html, duration

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

HOSTILE = "a<img src=x onerror=alert(1)>.png"


def data_of(page: Path) -> dict[str, Any]:
    """What the script of a page works on."""
    text = page.read_text(encoding="utf-8")
    return json.loads(text.split('id="data">')[1].split("</script>")[0])  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def batch(call_hbr: Run, toy: Path, photo: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a batch of three good photos, a bad one, and one that warns."""
    folder = tmp_path_factory.mktemp("report")
    for number, name in enumerate((HOSTILE, "b.jpg", "sub/c.webp")):
        photo(folder / "in" / name, number, size=(96, 80))
    (folder / "in" / "bad.jpg").write_text("no photo")
    from PIL import Image

    with Image.open(folder / "in" / "b.jpg") as image:
        image.save(folder / "in" / "warns.jpg", exif=b"Exif\0\0broken")
    asked = ("restore", "in", "-o", "out", "--recursive", "--report", "page.html", "--model", toy)
    done = call_hbr(*asked, cwd=folder)
    assert done.returncode == 3
    assert "hbr: the report is page.html\n" in done.stderr
    assert "page.html" not in done.stdout
    return folder


def test_what_the_page_says(batch: Path) -> None:
    text = (batch / "page.html").read_text(encoding="utf-8")
    assert "<h1>4 photos restored, 1 failed</h1>" in text
    assert str(batch) not in text
    rows = {row["name"]: row for row in data_of(batch / "page.html")["rows"]}
    assert set(rows) == {HOSTILE, "b.jpg", "bad.jpg", "c.webp", "warns.jpg"}
    assert rows["bad.jpg"]["error"].startswith("is not a photograph")
    assert rows["warns.jpg"]["notes"] == ["its EXIF is broken and dropped"]
    assert "notes" not in rows["b.jpg"]
    assert (rows["b.jpg"]["size"], rows["b.jpg"]["state"]) == ("96×80", "restored")
    assert rows["b.jpg"]["seconds"] >= 0
    assert rows["c.webp"]["link"] == "out/sub/c.webp"
    assert (batch / rows["b.jpg"]["link"]).is_file()
    pair = rows["b.jpg"]["pair"]
    assert pair["before"].startswith("data:image/webp;base64,")
    assert pair["ratio"] == pytest.approx(1.2)
    assert "people" not in rows["b.jpg"]


CLIP = "getComputedStyle(document.querySelector('#left-image')).clipPath"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page(batch: Path, browser: Any, width: int, scheme: str) -> None:
    page_file = batch / "page.html"
    size = {"width": width, "height": 900}
    page = browser.new_context(viewport=size, color_scheme=scheme, offline=True).new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    own = ("data:", page_file.as_uri())
    page.on("request", lambda r: None if r.url.startswith(own) else wrong.append(r.url))
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator("#stem option").all_inner_texts() == [
        HOSTILE,
        "b.jpg",
        "warns.jpg",
        "c.webp",
    ]
    page.focus("#slider")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(CLIP) == "inset(0px 49.5% 0px 0px)"
    page.click("#next")
    assert page.get_attribute("#right-image", "alt") == "b.jpg restored"
    assert page.inner_text("#caption").startswith("96×80 pixels · ")
    assert page.locator("#boxes-choice").is_hidden()
    assert page.locator("#list tbody tr").count() == 5
    page.click("#filters button[value=failed]")
    assert page.locator("#list tbody tr").all_inner_texts()[0].split("\n")[0].strip() == "bad.jpg"
    page.click("#filters button[value=all]")
    page.click("button[aria-label='Compare c.webp']")
    assert page.get_attribute("#left-image", "alt") == "c.webp before"
    loaded = "[...document.images].every((i) => i.complete && i.naturalWidth === 96)"
    page.wait_for_function(loaded)
    assert wrong == []


def made_up(people: list[list[float]] | None, **values: Any) -> FileRecord:
    """The record of a restored photo in which these boxes were found."""
    found = None if people is None else {"found": [{"box": box} for box in people]}
    return FileRecord(
        input="in/a.png",
        status="restored",
        output="out/a.png",
        size=(200, 100),
        timings={"read": 0.2, "model": 1.6, "color": 0.1, "write": 0.1, "total": 2.0},
        provenance={"hbr": "1", "model": "nano", **({"people": found} if found else {})},
        **values,
    )


def photo_of(height: int, width: int) -> Photo:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Photo(pixels=noise)


def test_people_are_counted_and_shown(browser: Any, tmp_path: Path) -> None:
    jobs = [Job(source=Path("in/a.png"), target=Path("out/a.png"))]
    report = BatchReport(jobs=jobs)
    report.look(jobs[0], photo_of(50, 100), SimpleNamespace(photo=photo_of(100, 200)))  # type: ignore[arg-type]
    report.records += [made_up([[10, 5, 20, 40], [50, 0, 50, 50]])]
    report.records += [dataclasses.replace(made_up([]), output=f"out/{n}.png") for n in "bc"]
    text = as_html(report, tmp_path / "page.html", total=3, ended="now", seconds=6)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    assert "2 in 1 photos" in text
    assert "reading 10%, model 80%, colours 5%, writing 5%" in text
    rows = data_of(tmp_path / "page.html")["rows"]
    assert [row["people"] for row in rows] == [2, 0, 0]
    assert rows[0]["pair"]["boxes"] == [[10, 10, 20, 80], [50, 0, 50, 100]]
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.check("#boxes")
    assert page.locator("#people b").all_inner_texts() == ["1", "2"]
    assert page.inner_text("#caption") == "200×100 pixels · 2 people · 2.00 s"
    page.click("#filters button[value='nobody found']")
    assert page.locator("#list tbody tr").count() == 2


def test_a_long_batch_makes_a_page_of_bounded_size(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [Job(source=Path(f"in/{i:04}.png"), target=Path(f"out/{i:04}.png")) for i in range(1000)]
    report = BatchReport(jobs=jobs)
    before, after = photo_of(40, 60), SimpleNamespace(photo=photo_of(40, 60))
    monkeypatch.setattr(collecting, "THUMBNAILS_BUDGET", 800 * 1500)
    for job in jobs:
        report.look(job, before, after)  # type: ignore[arg-type]
        report.records.append(dataclasses.replace(made_up(None), output=job.output))
    assert len(report.pairs) == collecting.MOST_PAIRS
    places = [int(Path(output).stem) for output in report.pairs]
    assert {b - a for a, b in itertools.pairwise(places)} == {10}
    assert 0 < len(report.thumbnails) < 1000
    spent = sum(map(len, report.thumbnails.values()))
    assert spent < 800 * 1500 + 10_000
    text = as_html(report, tmp_path / "page.html", total=1000, ended="now", seconds=9)
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.locator("#list tbody tr").count() == 200
    page.click("#more")
    assert page.locator("#list tbody tr").count() == 400
    assert page.inner_text("#more") == "Show more (600 left)"


def test_the_budget_of_the_sliders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "PAIRS_BUDGET", 30_000)
    jobs = [Job(source=Path(f"in/{i}.png"), target=Path(f"out/{i}.png")) for i in range(20)]
    report = BatchReport(jobs=jobs)
    for job in jobs:
        report.look(job, photo_of(60, 60), SimpleNamespace(photo=photo_of(60, 60)))  # type: ignore[arg-type]
    assert 0 < len(report.pairs) < 20
    assert len(report.thumbnails) == 20


def test_a_batch_that_is_stopped_still_has_its_page(
    hbr_command: list[str], photo: Write, light: Path, tmp_path: Path
) -> None:
    for number in range(30):
        photo(tmp_path / "in" / f"{number:02}.png", number)
    asked = ["restore", "in", "-o", "out", "--report", "page.html", "--model", str(light)]
    with subprocess.Popen(
        [*hbr_command, *asked],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode == 130
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    found = re.search(r"<h1>(\d+) photos restored, (\d+) not done</h1>", text)
    assert found is not None
    assert int(found[1]) >= 3
    assert int(found[1]) + int(found[2]) == 30


def test_what_is_refused_before_any_work(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.png")
    asked = ("restore", "in", "-o", "out", "--model", toy, "--report")
    (tmp_path / "there.html").write_text("mine")
    (tmp_path / "folder.html").mkdir()
    for name in ("page.txt", "there.html", "folder.html"):
        done = call_hbr(*asked, name, cwd=tmp_path)
        assert (done.returncode, "--report" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()
    assert call_hbr(*asked, "there.html", "--overwrite", cwd=tmp_path).returncode == 0
    assert call_hbr(*asked, "there.html", "--resume", cwd=tmp_path).returncode == 0
    (row,) = data_of(tmp_path / "there.html")["rows"]
    assert (row["state"], row["link"]) == ("restored before", "out/a.png")


def test_maps_of_invented_detail(call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    import toy_models

    model = toy_models.write(tmp_path / "toy.safetensors")
    for name in ("a.png", "sub/b.jpg"):
        photo(tmp_path / "in" / name, size=(96, 80))
    asked = ("restore", "in", "-o", "out", "--recursive", "--model", model, "--save-map")
    for maps, said in (("out", "is the folder of the outputs"), ("in/a.png", "not a folder")):
        done = call_hbr(*asked, maps, cwd=tmp_path)
        assert (done.returncode != 0, said in done.stderr) == (True, True), done.stderr
    assert not (tmp_path / "out").exists()
    done = call_hbr(*asked, "maps", "--report", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = {p.relative_to(tmp_path / "maps").as_posix() for p in (tmp_path / "maps").rglob("*.png")}
    assert made == {"a.png.png", "sub/b.jpg.png"}
    assert len(data_of(tmp_path / "page.html")["rows"]) == 2
    from hbr.image import read_photo

    assert read_photo(tmp_path / "maps" / "a.png.png").size == (80, 96)
    one = ("restore", "in/a.png", "-o", "one.png", "--model", model, "--save-map", "maps")
    assert call_hbr(*one, cwd=tmp_path).returncode == 0
    assert (tmp_path / "maps" / "one.png.png").is_file()


def test_warnings_are_in_the_json_records_too(batch: Path, call_hbr: Run, toy: Path) -> None:
    asked = ("restore", "in/warns.jpg", "in/b.jpg", "-o", "json", "--model", toy)
    done = call_hbr(*asked, "--log-format", "json", cwd=batch)
    warned, quiet = (json.loads(line) for line in done.stdout.splitlines())
    assert warned["warnings"] == ["in/warns.jpg: its EXIF is broken and dropped"]
    assert "warnings" not in quiet


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.21, "3.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
