"""`hbr curate` from the shell: run, killed, looked at, gone on with."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image

DATA = Path(__file__).parents[1] / "data"

RECIPE = """
name: shell
size: {longer: 64}
quality: {metrics: [{name: detail, threshold: 1.75}, {name: clipping}]}
output: {kinds: [], format: jpeg}
errors: 1.0
chunk: 4
"""
RUN = ("curate", "run", "recipe.yaml", "-i", "voc", "--workers", "0", "-o")


@pytest.fixture(scope="module")
def home(shared, tmp_path_factory):
    """26 photos in the format of VOC, one of them damaged; and the recipe."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(shared / "annotations/voc", folder / "voc")
    first = sorted((folder / "voc/img").iterdir())[0]
    first.write_bytes(first.read_bytes()[:3000])
    (folder / "recipe.yaml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def out(home, call_hbr):
    done = call_hbr(
        *["curate", "run", "recipe.yaml", "-i", "voc", "-o", "out", "--workers", "0"], cwd=home
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.strip() == "out/manifest.parquet"
    return home / "out"


def test_settings_for_a_source_that_is_not_there_are_told(home, call_hbr):
    """A misspelt name would leave a test set to the thresholds of the training."""
    settings = ("--set", "limits.vok.count=2", "--set", "limits.voc.count=3")
    done = call_hbr(*RUN, "limits", *settings, cwd=home)
    assert done.returncode == 3, done.stderr
    assert "warning: limits names vok, which is no source of this run; there are voc" in done.stderr
    assert "names voc" not in done.stderr
    assert "3 kept of 26 images" in done.stderr


def test_status_of_a_finished_run(out, call_hbr):
    done = call_hbr("curate", "status", out, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["state"], told["images"], told["rows"], told["errors"]) == ("finished", 26, 26, 1)
    assert told["chunks"] == 7
    steps = told["funnel"]
    assert steps[-1]["passed"] == told["alive"]
    lines = call_hbr("curate", "status", out).stdout.splitlines()
    assert lines[0] == "shell: finished"
    assert "  read: unreadable 1" in lines


def test_a_killed_run_is_told_and_goes_on(home, hbr_command, call_hbr):
    """SIGKILL after the first chunks; `status` and `report` work on what is there."""
    out = home / "killed"
    command = [*hbr_command, "curate", "run", "recipe.yaml", "-i", "voc", "-o", "killed"]
    process = subprocess.Popen([*command, "--workers", "1"], cwd=home, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (out / "work/progress.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    told = json.loads(call_hbr("curate", "status", out, "--json").stdout)
    assert told["state"].startswith("not running, not finished")
    assert 1 <= told["chunks"] <= 7
    done = call_hbr("curate", "report", out)
    assert done.returncode == 0, done.stderr
    assert "has not finished" in (out / "report.html").read_text()
    done = call_hbr("curate", "export", out, "-o", home / "nothing")
    assert done.returncode == 1
    assert "has not finished; the command that began it resumes it" in done.stderr
    done = call_hbr(
        *["curate", "run", "recipe.yaml", "-i", "voc", "-o", "killed", "--workers", "0"], cwd=home
    )
    assert done.returncode == 3
    assert call_hbr("curate", "status", out).stdout.startswith("shell: finished")


def test_explain_from_another_folder(out, call_hbr, tmp_path):
    listed = call_hbr("curate", "explain", "", out).stdout.splitlines()
    assert len(listed) == 10
    crop = next(line.split()[0] for line in listed if "kept" in line)
    done = call_hbr("curate", "explain", crop, out, "-p", "story.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "story.png"
    assert (tmp_path / "story.png").read_bytes().startswith(b"\x89PNG")


def test_diff_and_thresholds(home, out, call_hbr):
    done = call_hbr("curate", "thresholds", out, "--count", 5, "-o", home / "found.yaml")
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load((home / "found.yaml").read_text())
    assert {m["name"] for m in found["quality"]["metrics"]} == {"detail", "clipping"}
    (home / "next.yaml").write_text(
        yaml.safe_dump({**yaml.safe_load(RECIPE), "quality": found["quality"]})
    )
    done = call_hbr(
        "curate", "run", "next.yaml", "-i", "voc", "-o", "next", "--workers", 0, cwd=home
    )
    assert "(unreadable 1)" in done.stderr
    done = call_hbr("curate", "diff", out, home / "next")
    assert done.returncode == 0, done.stderr
    assert "quality.metrics[detail].threshold: 1.75 → " in done.stdout
    assert "0 gained" in done.stdout
    assert "kept → below-threshold" in done.stdout
    rows = [
        json.loads(x)
        for x in call_hbr("curate", "diff", out, home / "next", "--json").stdout.splitlines()
    ]
    assert rows[-1]["totals"]["kept"][1] >= 5
    assert rows[-1]["totals"]["kinds"]["lost"] == sum(r.get("kind") == "lost" for r in rows)


def test_plan_lists_what_is_missing(home, call_hbr):
    (home / "planned.yaml").write_text("quality: {metrics: [{name: niqe}]}\n")
    done = call_hbr("curate", "plan", "planned.yaml", "-i", "voc", "--sample", 3, cwd=home)
    assert done.returncode == 4
    assert "source voc (voc): 26 images, 100% with boxes" in done.stdout
    assert "hbr fetch niqe" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["status", "nowhere"], 1, "hbr: nowhere: no such file or folder"),
        (["report", "."], 1, "hbr: . holds no run of hbr curate"),
        (["explain", "zz", "out"], 1, "hbr: out: no row's id starts with zz"),
        (["thresholds", "out", "-m", "niqe"], 1, "hbr: out has no scores called niqe"),
        (["thresholds", "out", "--count", "9999"], 1, "hbr: 9999 cannot be kept"),
        (["thresholds", "out", "--count", "1", "--mean", "detail=2"], 2, "are mutually exclusive"),
        (["thresholds", "out", "--mean", "detail"], 2, "must be METRIC=VALUE"),
        (["run"], 2, "give photos or annotations"),
        (["run", "-i", "voc", "--max-errors", "5"], 2, "errors is 5.0; it must be 0 to 1"),
        (["run", "-i", "voc", "--ray-address", "auto"], 2, "only valid with --engine ray"),
        (["run", "-i", "nowhere"], 1, "hbr: nowhere: no such file or folder"),
    ],
)
def test_bad_input_is_one_line(home, out, call_hbr, arguments, code, line):
    done = call_hbr("curate", *arguments, cwd=home)
    assert done.returncode == code, done.stderr
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


NOTHING = """
name: nothing
sharpness: {threshold: 0}
size: {longer: 1}
crop: {overlap: 1, crowd_people: 1000, edge: 64, narrow: shrink}
quality: {metrics: [], top: 1}
duplicates: {radius: 0}
"""


def _coco(folder, **change):
    entry = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 90, 90], **change}
    data = {
        "categories": [{"id": 1, "name": change.pop("label", "person")}],
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [entry],
    }
    (folder / "coco.json").write_text(json.dumps(data))
    return "coco.json"


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({}, 0, None),
        ({"iscrowd": 1}, 3, "nothing was kept of 1 images: the box holds a group of people (1)"),
        ({"bbox": [5, 5, 0, 9]}, 3, "nothing was kept of 1 images: the box has no area (1)"),
        ({"iscrowd": "maybe"}, 3, "has the iscrowd 'maybe', not 0 or 1"),
        ({"label": "pessoa"}, 3, "coco.json: none of its categories names a person"),
    ],
)
def test_nothing_kept_is_said(tmp_path, call_hbr, change, code, said):
    """An entry of the annotations costs only itself; that nothing is left is not all done."""
    with Image.open(DATA / "blue.png") as image:
        image.convert("RGB").resize((200, 100)).save(tmp_path / "a.png")
    (tmp_path / "recipe.yaml").write_text(NOTHING)
    source = _coco(tmp_path, **change)
    done = call_hbr(
        *["curate", "run", "recipe.yaml", "-i", source, "-o", "out", "--workers", "0"], cwd=tmp_path
    )
    assert done.returncode == code, done.stderr
    assert ("nothing was kept" in done.stderr) is (said is not None)
    assert (said or "") in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out/manifest.parquet").exists()
