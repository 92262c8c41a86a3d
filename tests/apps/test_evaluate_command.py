"""`hbr evaluate` on real files: numbers, pairing, bad input, an interruption, and going on."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hbr.image import read_photo
from hbr.metrics import load_metric

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

ONE_LINE_EACH = ("--workers", "1", "--bootstrap", "100")


def blurred(source: Path, target: Path, amount: int = 2) -> Path:
    """The picture as another one of the same size."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        small = image.resize((image.width // amount, image.height // amount))
        small.resize(image.size).save(target)
    return target


@pytest.fixture
def pairs(tmp_path: Path, photo: Write) -> tuple[Path, Path]:
    """Folders of six references, and what was restored, under the names that a program gives."""
    for number in range(6):
        hq = photo(tmp_path / "hq" / f"p{number}.png", number)
        blurred(hq, tmp_path / "restored" / f"p{number}_out.png", 2 + number % 3)
    return tmp_path / "restored", tmp_path / "hq"


def means(done: "subprocess.CompletedProcess[str]") -> dict[str, list[str]]:
    """Heading → the other columns."""
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["metric", "mean", "low", "high", "n", "failed"]
    return {line[0].split(" (")[0]: line[1:] for line in lines[1:]}


def test_numbers_are_those_of_the_metrics(
    call_hbr: Run, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    restored, hq = pairs
    files = {kind: tmp_path / f"out.{kind}" for kind in ("json", "csv", "parquet")}
    outputs = [part for kind, file in files.items() for part in (f"--{kind}", file)]
    command = ("evaluate", "-r", restored, "-g", hq, "--strip", "_out", "-m", "psnr,gmsd")
    done = call_hbr(*command, *outputs)
    assert (done.returncode, done.stderr) == (0, "")
    expected = {}
    for name in ("psnr-y", "gmsd"):
        metric = load_metric(name)
        for number in range(6):
            image = read_photo(restored / f"p{number}_out.png").tensor()
            reference = read_photo(hq / f"p{number}.png").tensor()
            expected[f"p{number}", name] = metric(image, reference).item()
    found = json.loads(files["json"].read_text(encoding="utf-8"))
    rows = {(r["stem"], m): r[m] for r in found["rows"] for m in ("psnr-y", "gmsd")}
    assert rows == pytest.approx(expected, abs=1e-9)
    with files["csv"].open(newline="", encoding="utf-8") as lines:
        table = list(csv.DictReader(lines))
    assert {(r["stem"], m): float(r[m]) for r in table for m in ("psnr-y", "gmsd")} == rows
    parquet = pq.read_table(files["parquet"])
    assert parquet.column("gmsd").to_pylist() == [rows[f"p{n}", "gmsd"] for n in range(6)]
    assert json.loads(parquet.schema.metadata[b"hbr.metrics"])["gmsd"]["version"]
    psnr = found["means"]["psnr-y"]
    assert psnr["mean"] == pytest.approx(np.mean([rows[f"p{n}", "psnr-y"] for n in range(6)]))
    assert psnr["low"] < psnr["mean"] < psnr["high"]
    assert means(done)["PSNR-Y"][3:] == ["6", "0"]
    assert not list(tmp_path.glob(".*"))  # nothing is kept of a run that is complete


def test_workers_and_batches_do_not_matter(
    call_hbr: Run, pairs: tuple[Path, Path], photo: Write
) -> None:
    restored, hq = pairs
    blurred(photo(hq / "wide.png", 3, (60, 40)), restored / "wide_out.png")
    command = ("evaluate", "-r", restored, "-g", hq, "--strip", "_out", "-m", "psnr,ssim,gmsd")
    outputs = {
        call_hbr(*command, "--workers", workers, "--batch", batch).stdout
        for workers, batch in ((0, 1), (2, 1), (1, 7))
    }
    (text,) = outputs
    assert "\t7\t0\n" in text


def test_one_unreadable_among_good_ones(
    call_hbr: Run, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    restored, hq = pairs
    (restored / "p1_out.png").write_bytes(b"no picture")
    data = (restored / "p4_out.png").read_bytes()
    (restored / "p4_out.png").write_bytes(data[: len(data) // 2])
    command = ("evaluate", "-r", restored, "-g", hq, "--strip", "_out", "-m", "psnr")
    out = tmp_path / "out.json"
    done = call_hbr(*command, "--json", out, *ONE_LINE_EACH)
    assert done.returncode == 3
    first, second = done.stderr.splitlines()
    assert first.startswith(f"hbr: {restored / 'p1_out.png'}: is not a photograph")
    assert second.startswith(f"hbr: {restored / 'p4_out.png'}: ")
    assert means(done)["PSNR-Y"][3:] == ["4", "2"]
    # mended, only these are measured: what was kept is taken, as a planted value shows
    kept = tmp_path / ".out.json.hbr-kept"
    lines = [json.loads(line) for line in kept.read_text().splitlines()]
    assert len(lines) == 4
    planted = [{**line, "values": {"psnr-y@hbr-1": 1.0}} for line in lines]
    stale = [{**line, "values": {"psnr-y@hbr-0": 2.0}} for line in lines]
    kept.write_text("\n".join(map(json.dumps, [*planted, *stale])) + '\n{"torn')
    for number in (1, 4):
        shutil.copy(hq / f"p{number}.png", restored / f"p{number}_out.png")
    done = call_hbr(*command, "--json", out, "--resume", *ONE_LINE_EACH)
    assert (done.returncode, done.stderr) == (0, "")
    values = [row["psnr-y"] for row in json.loads(out.read_text())["rows"]]
    assert values == [1.0, 120.0, 1.0, 1.0, 120.0, 1.0]
    assert not kept.exists()


def test_a_changed_file_is_measured_again(
    call_hbr: Run, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    restored, hq = pairs
    (restored / "p0_out.png").write_bytes(b"")
    command = ("evaluate", "-r", restored, "-g", hq, "--strip", "_out", "-m", "psnr")
    command = (*command, "--json", tmp_path / "out.json", *ONE_LINE_EACH)
    assert call_hbr(*command).returncode == 3
    before = (restored / "p2_out.png").stat()
    for number in (0, 2):
        shutil.copy(hq / f"p{number}.png", restored / f"p{number}_out.png")
    os.utime(restored / "p2_out.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert call_hbr(*command, "--resume").returncode == 0
    values = [row["psnr-y"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]]
    assert [value == 120 for value in values] == [True, False, True, False, False, False]


@pytest.mark.parametrize(
    ("policy", "code", "n", "said"),
    [
        ("error", 3, "5", "the restored picture is 24x20, its reference 48x40; --size resize"),
        ("skip", 0, "5", "1 of 6 pairs left out, of unequal sizes"),
        ("resize", 0, "6", "1 of 6 restored pictures were resized"),
    ],
)
def test_unequal_sizes(
    call_hbr: Run, pairs: tuple[Path, Path], photo: Write, policy: str, code: int, n: str, said: str
) -> None:
    restored, hq = pairs
    with Image.open(restored / "p3_out.png") as image:
        image.resize((24, 20)).save(restored / "p3_out.png")
    command = ("evaluate", "-r", restored, "-g", hq, "--strip", "_out", "-m", "psnr")
    done = call_hbr(*command, "--size", policy, *ONE_LINE_EACH)
    assert done.returncode == code
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert means(done)["PSNR-Y"][3] == n


def test_grey_against_colour(call_hbr: Run, tmp_path: Path, photo: Write) -> None:
    hq = photo(tmp_path / "hq" / "a.png")
    (tmp_path / "r").mkdir()
    with Image.open(hq) as image:
        image.convert("L").save(tmp_path / "r" / "a.png")
    command = ("evaluate", "-r", tmp_path / "r", "-g", tmp_path / "hq", *ONE_LINE_EACH)
    done = call_hbr(*command, "-m", "psnr,psnr-rgb")
    assert done.returncode == 0
    assert "1 of 1 pairs are grey against colour, compared with R = G = B" in done.stderr
    found = means(done)
    # the luma of a grey copy is the picture's own, but for rounding; its colours are gone
    assert float(found["PSNR-Y"][0]) > 50
    assert float(found["PSNR-RGB"][0]) < 40


def test_what_is_refused_before_any_work(
    call_hbr: Run, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    restored, hq = pairs
    (tmp_path / "empty").mkdir()
    command = ("evaluate", "-r", restored, "--strip", "_out")
    cases = [
        (("-g", tmp_path / "empty", "-m", "psnr"), 1, "holds no pictures"),
        (("-g", tmp_path / "none", "-m", "psnr"), 1, "does not exist"),
        (("-m", "psnr"), 2, "psnr-y compares with references; give them by --reference"),
        (("-g", hq, "-m", "pnsr"), 2, "did you mean psnr"),
        (("-g", hq, "-m", "psnr,psnr-y"), 2, "each metric once"),
        (("-g", hq, "-m", ","), 2, "metrics"),
        (("-g", hq, "--strip", "re:("), 2, "a regular expression"),
        (("-g", hq, "--resume"), 2, "needs --json, --csv or --parquet"),
        (("-g", hq, "--json", hq / "p0.png"), 2, "use --overwrite to replace it"),
        (("-g", hq, "--json", hq, "--overwrite"), 2, "is not a regular file"),
    ]
    for arguments, code, said in cases:
        done = call_hbr(*command, *arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done.stderr
        assert said in done.stderr
    (restored / "p5_out.png").unlink()
    done = call_hbr("evaluate", "-r", restored, "-g", hq, "--strip", "_out")
    assert done.returncode == 1
    assert "1 reference without a restored picture, first" in done.stderr


def test_a_picture_too_small_for_a_metric(call_hbr: Run, tmp_path: Path, photo: Write) -> None:
    for number, size in enumerate(((48, 40), (8, 8))):
        blurred(
            photo(tmp_path / "hq" / f"{number}.png", size=size), tmp_path / "r" / f"{number}.png"
        )
    command = ("evaluate", "-r", tmp_path / "r", "-g", tmp_path / "hq", *ONE_LINE_EACH)
    done = call_hbr(*command, "-m", "psnr,ssim")
    assert done.returncode == 3
    assert "1: ssim-y: ssim-y needs 11 pixels" in done.stderr
    assert [column[3:] for column in means(done).values()] == [["2", "0"], ["1", "1"]]


def test_a_metric_without_its_weights(
    call_hbr: Run, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    restored, hq = pairs
    command = ("evaluate", "-r", restored, "-g", hq, "--strip", "_out", "--workers", "0")
    command = (*command, "--json", tmp_path / "out.json")
    done = call_hbr(*command, "-m", "psnr,dists")
    assert done.returncode == 3
    assert done.stderr.startswith("hbr: dists needs the weights vgg16, which are not on this")
    assert done.stderr.count("\n") == 1
    # what was measured is there when the weights are
    assert (tmp_path / ".out.json.hbr-kept").read_text().count("\n") == 6
    done = call_hbr(*command, "-m", "dists", "--overwrite")
    assert (done.returncode, done.stdout) == (4, "")
    assert "`hbr fetch vgg16` gets them" in done.stderr


def test_a_disk_that_is_full(
    hbr_command: list[str], call_hbr: Run, pairs: tuple[Path, Path], tmp_path: Path
) -> None:
    restored, hq = pairs
    out = tmp_path / "out.json"
    arguments = ["evaluate", "-r", restored, "-g", hq, "--strip", "_out", "--json", out]
    arguments += ["--workers", "0"]
    # no file may have more than two blocks of 512 bytes
    command = ["sh", "-c", 'ulimit -f 2; exec "$@"', "sh", *hbr_command, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "File too large" in done.stderr
    assert not out.exists()
    done = call_hbr(*arguments, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert means(done)["PSNR-Y"][3:] == ["6", "0"]


def test_stopped_and_gone_on(
    hbr_command: list[str], call_hbr: Run, tmp_path: Path, photo: Write
) -> None:
    hq = tmp_path / "hq"
    for number in range(16):
        photo(hq / f"{number:02}.png", number, (300, 240))
    out, kept = tmp_path / "out.json", tmp_path / ".out.json.hbr-kept"
    arguments = ["evaluate", "-r", hq, "-g", hq, "-m", "fsim,vif", "--json", out]
    command = [*hbr_command, *map(str, arguments), "--workers", "1", "--batch", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and (not kept.exists() or kept.read_bytes().count(b"\n") < 3):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, ""), stderr
    assert stderr == "hbr: stopped; run the same command with --resume to continue\n"
    assert not out.exists()
    before = kept.read_bytes().count(b"\n")
    assert 3 <= before < 16
    done = call_hbr(*arguments, "--resume")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["status"] for row in json.loads(out.read_text())["rows"]] == ["measured"] * 16
