"""A person's review of a run: its page in a real browser, and what its choices change."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbr.curation.config import CropConfig, CurationConfig, SharpnessConfig, SizeConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.record import CurationError
from hbr.curation.runs.choices import identity
from hbr.curation.runs.review import apply_choices, write_page
from hbr.curation.runs.run import curate
from hbr.curation.runs.run_folder import RunFolder
from hbr.curation.sources.configs import ShhqConfig

HOSTILE = '"><img src=x onerror=alert(1)>.png'


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished run over seven photos, one of which has a hostile name."""
    folder = tmp_path_factory.mktemp("review")
    photos = folder / "photos/no_segment"
    photos.mkdir(parents=True)
    for i, name in enumerate([*(f"{i}.png" for i in range(6)), HOSTILE]):
        pixels = np.random.default_rng(i).integers(0, 256, (128, 64, 3), np.uint8)
        Image.fromarray(pixels).save(photos / name)
    config = CurationConfig(
        sources=(ShhqConfig(path=folder / "photos"),),
        sharpness=SharpnessConfig(threshold=0),
        size=SizeConfig(longer=32),
        crop=CropConfig(edge=32, height=64),
    )
    curate(config, folder / "run", engine=LocalEngine(workers=0))
    return folder / "run"


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "run", copy_function=shutil.copy2)
    return tmp_path / "run"


def kept(run: Path) -> list[str]:
    return [record.id for record in Manifest(run).kept()]


def test_the_page_is_worked_with_the_keyboard_and_its_choices_apply(browser, run, call_hbr) -> None:
    ids = kept(run)
    assert len(ids) == 7
    told = call_hbr("curate", "review", run)
    assert told.stdout.strip() == str(run / "review.html")
    page = browser.new_context(viewport={"width": 640, "height": 800}).new_page()
    page.set_default_timeout(15_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    page.on(
        "request", lambda r: r.url.startswith(("data:", "file:", "blob:")) or wrong.append(r.url)
    )
    page.goto((run / "review.html").as_uri())
    assert page.locator("#sheet input").count() == 7
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    assert page.locator("#count").inner_text() == "7 stay, 0 do not"
    page.keyboard.press("ArrowRight")  # the first crop
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("x")  # on second thoughts
    assert page.locator("#count").inner_text() == "5 stay, 2 do not (not saved)"
    with page.expect_download() as download:
        page.keyboard.press("s")
    choices = run / "choices.json"
    download.value.save_as(choices)
    assert wrong == []
    assert json.loads(choices.read_text())["left_out"] == ids[:2]

    told = call_hbr("curate", "review", run, "--apply", choices)
    assert told.returncode == 0, told.stderr
    assert "7 seen, 2 left out; 5 kept" in told.stderr
    assert kept(run) == ids[2:]
    assert len([*run.glob("crops/**/*.png")]) == 5
    rows = {record.id: record for record in Manifest(run)}
    assert (rows[ids[0]].stage, rows[ids[0]].reason) == ("splits", "reviewed")
    # nothing is left to be seen, and the run's own command keeps the choices
    assert "every kept crop has been reviewed" in call_hbr("curate", "review", run).stderr


def test_pages_follow_each_other_and_later_choices_decide(run: Path) -> None:
    ids, page = kept(run), run / "review.html"
    assert write_page(RunFolder(run), page, count=3) == (3, 4)
    text = page.read_text()
    assert all(i in text for i in ids[:3])
    assert ids[3] not in text
    told = text.split('id="data">')[1].split("</script>")[0]
    own = json.loads(told)["run"]

    def choices(name: str, seen: list[str], left_out: list[str]) -> Path:
        (run / name).write_text(json.dumps({"run": own, "seen": seen, "left_out": left_out}))
        return run / name

    first = choices("a.json", ids[:3], ids[:2])
    again = choices("b.json", ids[:3], [ids[2]])
    assert apply_choices(RunFolder(run), [first]).left_out == {*ids[:2]}
    assert apply_choices(RunFolder(run), [again]).left_out == {ids[2]}
    assert write_page(RunFolder(run), page, count=99) == (4, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "holds no choices of hbr curate review"),
        ('{"run": "x", "seen": [1], "left_out": []}', "holds no choices of hbr curate review"),
        ('{"run": "x", "seen": [], "left_out": ["a"]}', "left_out names crops that are not among"),
        ('{"run": "x", "seen": ["a"], "left_out": []}', "the choices of another run than"),
    ],
)
def test_choices_that_are_none_or_another_run_s_are_one_line(run, text, said, call_hbr) -> None:
    (run / "c.json").write_text(text)
    before = (run / "manifest.parquet").read_bytes()
    told = call_hbr("curate", "review", run, "--apply", run / "c.json")
    assert told.returncode != 0
    assert said in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1
    assert (run / "manifest.parquet").read_bytes() == before
    assert not (run / "review.json").exists()


def test_choices_are_not_kept_where_they_cannot_be_applied(run: Path, call_hbr) -> None:
    shutil.rmtree(run / "work")
    choices = {"run": identity(Manifest(run)), "seen": kept(run), "left_out": kept(run)[:1]}
    (run / "c.json").write_text(json.dumps(choices))
    told = call_hbr("curate", "review", run, "--apply", run / "c.json")
    assert told.returncode == 2
    assert "has no work folder" in told.stderr
    assert not (run / "review.json").exists()


def test_only_a_finished_run_is_reviewed(run: Path) -> None:
    with pytest.raises(CurationError, match="not the folder of a finished run"):
        write_page(RunFolder(run / "manifest.parquet"), run / "x.html", count=1)
