"""`hbr benchmark` on real files: from photos to tables, failures of every kind, and going on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from hbr.evaluation.results import BenchmarkRun, Cell
from hbr.image import read_photo
from hbr.metrics import load_metric

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

# What a peer may do: blur each picture; leave out one of them, die, hang, or give another size.
PEER = """
import sys, time
from pathlib import Path
from PIL import Image, ImageFilter
source, target, what = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if what == "hang":
    time.sleep(600)
for number, path in enumerate(sorted(source.iterdir())):
    if what == "half" and number % 2:
        continue
    image = Image.open(path).filter(ImageFilter.GaussianBlur(1))
    if what == "size":
        image = image.resize((image.width * 2, image.height))
    (target / "sample00").mkdir(exist_ok=True)
    image.save(target / "sample00" / path.name)
    if what == "crash" and number == 1:
        sys.exit("something went wrong")
"""


@pytest.fixture
def folder(tmp_path: Path, photo: Write) -> Path:
    """Photos, and a program that restores them in its way."""
    for number in range(4):
        photo(tmp_path / "photos" / f"p{number}.png", number)
    (tmp_path / "peer.py").write_text(PEER)
    return tmp_path


def peer(folder: Path, what: str) -> dict[str, Any]:
    """A method that runs the program."""
    command = ["{python}", "{repo}/peer.py", "{input}", "{output}", what]
    program = {"command": command, "outputs": ["output/sample00/{name}.png"], "factor": 1}
    return {
        "kind": "program",
        "program": program,
        "python": sys.executable,
        "repo": str(folder),
        "start_seconds": 6 if what == "hang" else 60,
        "image_seconds": 0.1 if what == "hang" else 60,
        "attempts": 1,
    }


def benchmark(folder: Path, methods: dict[str, Any], **changes: Any) -> Path:
    """The YAML of a benchmark on these photos."""
    data_set = {
        "hq": "${photos}",
        "lq": {"kind": "recipe", "recipe": "light", "seed": 1},
        "metrics": ["psnr", "gmsd"],
    }
    values = {
        "title": "a test",
        "data_sets": {"photos": data_set | changes.pop("data_set", {})},
        "methods": methods,
        **changes,
    }
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


# No processes to start, no pictures to draw
QUICK = ("--no-report", "--workers", "0")

INPUT = {"input": {"kind": "baseline", "baseline": "input"}}
MEDIAN = {"median": {"kind": "baseline", "baseline": "median"}}


def cells(out: Path) -> dict[tuple[str, str], Cell]:
    """(method, metric) → cell, of a run of one data set."""
    return {(cell.method, cell.metric): cell for cell in BenchmarkRun.load(out).cells}


def test_from_photos_to_numbers(call_hbr: Run, folder: Path, toy: Path) -> None:
    out = folder / "run"
    for path in (folder / "photos").iterdir():  # as large as the metrics of several scales need
        with Image.open(path) as image:
            image.resize((192, 176)).save(path)
    arguments = ("--data", f"photos={folder / 'photos'}", "--data", f"model={toy}", "-o", out)
    done = call_hbr("benchmark", "run", "nano", *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(out / "run.json")
    assert list((out / "report").glob("*.html"))
    run = BenchmarkRun.load(out)
    assert [method.name for method in run.methods] == ["input", "median", "non-local means", "nano"]
    assert len(run.rows) == 4 * 4
    metric = load_metric("psnr-y")
    expected = []
    for number in range(4):
        lq = read_photo(out / "lq" / "photos" / f"p{number}.png").tensor()
        hq = read_photo(folder / "photos" / f"p{number}.png").tensor()
        expected.append(metric(lq, hq).item())
    cell = cells(out)["input", "psnr-y"]
    assert cell.mean == pytest.approx(np.mean(expected), abs=1e-9)
    assert cell.low is not None
    assert cell.high is not None
    assert cell.low <= cell.mean <= cell.high
    for row in run.rows:
        for file in (row.lq, row.restored, row.reference):
            assert file is not None
            assert run.path(file).is_file()
        assert row.values.keys() == {info.id for info in run.metrics}
    # the toy model changes nothing, so that it differs from the input by rounding alone
    (against,) = (d for d in run.differences if (d.method, d.metric) == ("nano", "ssim-y"))
    assert against.other == "input"
    assert against.mean == pytest.approx(0, abs=0.01)


@pytest.mark.slow
def test_methods_that_fail_cost_only_themselves(call_hbr: Run, folder: Path) -> None:
    broken = folder / "broken.yaml"
    bad = {what: peer(folder, what) for what in ("half", "crash", "hang", "size")}
    bad["gone"] = {"kind": "folder", "folder": str(folder / "gone")}
    bad["no model"] = {"kind": "hbr", "model": str(folder / "none.safetensors")}
    name = benchmark(folder, INPUT | {"peer": peer(folder, "well")} | bad)
    out = folder / "run"
    data = ("--data", f"photos={folder / 'photos'}", "-o", out, *QUICK)
    done = call_hbr("benchmark", "run", name, *data)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    found = cells(out)
    counts = {method: (found[method, "gmsd"].n, found[method, "gmsd"].failed) for method in
              ("input", "peer", "half", "crash", "hang", "size", "gone", "no model")}  # fmt: skip
    assert counts == {
        "input": (4, 0),
        "peer": (4, 0),
        "half": (2, 2),
        "crash": (2, 2),
        "hang": (0, 4),
        "size": (0, 4),
        "gone": (0, 4),
        "no model": (0, 4),
    }
    run = BenchmarkRun.load(out)
    lines = {(row.method, row.stem): row.error for row in run.rows if row.error}
    assert len(lines) == 2 + 2 + 4 * 4
    assert "expected were 48×40" in (lines["size", "p0"] or "")
    assert all(line and "\n" not in line for line in lines.values())
    assert not broken.exists()
    # mended and gone on: what is there is taken, what failed is done again
    (folder / "peer.py").write_text(PEER.replace('what == "half"', "False"))
    before = {p: p.stat().st_mtime_ns for p in (out / "restored/photos").rglob("*.png")}
    done = call_hbr("benchmark", "run", name, *data, "--resume")
    assert done.returncode == 3
    assert (cells(out)["half", "gmsd"].n, cells(out)["half", "gmsd"].failed) == (4, 0)
    assert all(p.stat().st_mtime_ns == mtime for p, mtime in before.items())


def test_a_metric_without_its_weights(call_hbr: Run, folder: Path) -> None:
    name = benchmark(folder, INPUT, data_set={"metrics": ["psnr", "lpips-alex"]})
    out = folder / "run"
    data = ("--data", f"photos={folder / 'photos'}", "-o", out, *QUICK)
    done = call_hbr("benchmark", "run", name, *data)
    assert done.returncode == 3
    assert "lpips-alex needs the weights" in done.stderr
    cell = cells(out)["input", "lpips-alex"]
    assert (cell.mean, cell.failed) == (None, 4)
    assert "needs the weights" in (cell.error or "")
    assert cells(out)["input", "psnr-y"].n == 4


def test_a_table_of_a_paper_that_has_no_such_cell(call_hbr: Run, folder: Path) -> None:
    out = folder / "run"
    data = ("--data", f"photos={folder / 'photos'}", "-o", out, *QUICK)
    assert call_hbr("benchmark", "run", benchmark(folder, INPUT), *data).returncode == 0
    done = call_hbr("benchmark", "compare", out)
    assert (done.returncode, done.stdout) == (2, "")
    assert "does not name a paper's table" in done.stderr
    done = call_hbr("benchmark", "compare", out, "--paper", "osdhuman.table9")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "known: osdhuman.table1_datasets" in done.stderr
    done = call_hbr("benchmark", "compare", out, "--paper", "osdhuman.table2_methods")
    assert done.returncode == 0
    assert "has none of these cells; it is of PERSONA-Test, PERSONA-Val" in done.stderr
    verdicts = {tuple(x.split("\t")[i] for i in (1, 2, 6)) for x in done.stdout.splitlines()[1:]}
    assert verdicts == {("input", name, "no paper value") for name in ("PSNR-Y", "GMSD")}
    done = call_hbr("benchmark", "compare", out, "--tolerance", "psnr=-1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "psnr is -1; it must be 0 or more" in done.stderr


def test_names_on_a_terminal(hbr_command: list[str], call_hbr: Run, folder: Path) -> None:
    methods = {"[bold] of [/us]": INPUT["input"]}
    out = folder / "run"
    data = ("--data", f"photos={folder / 'photos'}", "-o", out, *QUICK)
    assert call_hbr("benchmark", "run", benchmark(folder, methods), *data).returncode == 0
    arguments = ["benchmark", "compare", str(out), "--paper", "osdhuman.table2_methods"]
    screen, terminal = os.openpty()
    subprocess.run(
        [*hbr_command, *arguments],
        stdout=terminal,
        check=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "160"},
    )
    os.close(terminal)
    shown = os.read(screen, 65536).decode()
    os.close(screen)
    assert "[bold] of [/us]" in shown


def test_what_is_refused_before_any_work(call_hbr: Run, folder: Path) -> None:
    name = benchmark(folder, INPUT)
    photos = f"photos={folder / 'photos'}"
    (folder / "empty").mkdir()
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").touch()
    out = folder / "run"
    cases = [
        (("run", name, "-o", out), "give --data photos=PATH"),
        (("run", "nothing", "-o", out), "no benchmark is called 'nothing'"),
        (("run", name, "-o", out, "--data", "photos"), "must be NAME=PATH"),
        (("run", name, "-o", out, "--data", photos, "--data", photos), "given twice"),
        (("run", name, "-o", out, "--data", f"photos={folder / 'empty'}"), "holds no pictures"),
        (("run", name, "-o", folder / "full", "--data", photos), "holds other files"),
        (("run", name, "-o", name, "--data", photos), "is not a folder"),
        (("compare", folder / "empty"), "`hbr benchmark run` makes it"),
        (("compare", name), "is not JSON"),
        (("show", "nothing"), "no benchmark is called 'nothing'"),
    ]
    for arguments, said in cases:
        done = call_hbr("benchmark", *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_a_folder_of_another_run(call_hbr: Run, folder: Path) -> None:
    data = ("--data", f"photos={folder / 'photos'}", "-o", folder / "run", *QUICK)
    assert call_hbr("benchmark", "run", benchmark(folder, INPUT), *data).returncode == 0
    done = call_hbr("benchmark", "run", folder / "test.yaml", *data)
    assert (done.returncode, "--resume continues it" in done.stderr) == (2, True)
    done = call_hbr("benchmark", "run", "nano", *data, "--resume")
    assert (done.returncode, "holds a run of 'test'" in done.stderr) == (2, True)
    before = (folder / "run" / "run.json").read_bytes()
    shutil.copytree(folder / "run", folder / "moved")
    done = call_hbr("benchmark", "compare", folder / "moved", "--paper", "osdhuman.table2_methods")
    assert done.returncode == 0
    assert (folder / "run" / "run.json").read_bytes() == before


def test_a_data_set_that_is_lost_and_a_tolerance_that_stays(call_hbr: Run, folder: Path) -> None:
    gone = {"hq": "nowhere", "lq": {"kind": "recipe"}, "metrics": ["psnr"]}
    name = benchmark(folder, {"SeeSR": INPUT["input"]}, tolerance={"psnr": 99})
    values = yaml.safe_load(name.read_text())
    values["data_sets"] = {"gone": gone, "PERSONA-Val": values["data_sets"]["photos"]}
    name.write_text(yaml.safe_dump(values))
    out = folder / "run"
    done = call_hbr(
        "benchmark", "run", name, "--data", f"photos={folder / 'photos'}", "-o", out, *QUICK
    )
    assert done.returncode == 3
    assert "gone is left out: nowhere: does not exist" in done.stderr
    again = ("--paper", "osdhuman.table2_methods", "--tolerance", "ssim=0.1", "--json")
    done = call_hbr("benchmark", "compare", out, *again)
    found = {(c["method"], c["metric"]): c for c in json.loads(done.stdout)["cells"]}
    assert found["SeeSR", "psnr-y"]["tolerance"] == 99


@pytest.mark.slow
def test_killed_and_gone_on(hbr_command: list[str], call_hbr: Run, folder: Path) -> None:
    slow = folder / "slow"
    slow.mkdir()
    for number in range(12):
        with Image.open(folder / "photos/p0.png") as image:
            image.resize((200, 160 + number)).save(slow / f"{number:02}.png")
    out = folder / "run"
    arguments = ["benchmark", "run", benchmark(folder, INPUT | MEDIAN), "--data", f"photos={slow}"]
    arguments += ["-o", out, *QUICK]
    command = [*hbr_command, *map(str, arguments)]
    for number, name in ((signal.SIGKILL, "lq/photos/*.png"), (signal.SIGINT, "kept/*/*")):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not list(out.glob(name)):
            time.sleep(0.02)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode in (130, -9), stderr
        command = [*hbr_command, *map(str, arguments), "--resume"]
    assert "hbr: stopped; run the same command with --resume to continue" in stderr
    assert not (out / "run.json").exists()
    done = call_hbr(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert cells(out)["median", "psnr-y"].n == 12
    (folder / "fresh").mkdir()
    arguments[arguments.index(out)] = folder / "fresh"
    assert call_hbr(*arguments).returncode == 0
    assert cells(folder / "fresh") == cells(out)


def test_list_and_show(call_hbr: Run) -> None:
    listed = call_hbr("benchmark", "list").stdout.splitlines()
    assert "nano\tnano and simple filters on photos of your own\t--data photos=PATH" in listed
    found = json.loads(call_hbr("benchmark", "list", "--json").stdout)
    assert {b["name"] for b in found} >= {"nano", "osdhuman-table1", "haodiff-table1"}
    assert call_hbr("benchmark", "show", "nano").stdout.startswith("# Runs offline")
