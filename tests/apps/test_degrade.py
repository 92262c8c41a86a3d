"""`hbr degrade`: the same bytes however the work is shared out, and nothing lost on the way."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from hbr.apps.cli.main import _describe, app
from hbr.config import ConfigError, from_dict
from hbr.degradation import Degradation, degrade
from hbr.degradation.folder import longest_mask
from hbr.errors import ExitCode
from hbr.image import read_photo

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


def call(*args: str | Path) -> int:
    """Run `hbr` in this process, which starts no interpreter; its exit code."""
    done = CliRunner().invoke(app, ["degrade", *map(str, args)], standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return int(done.return_value or 0)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the journals."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".hbr-degrade")
    }


def rows(*manifests: Path) -> list[dict[str, object]]:
    """The rows of manifests, one after another and sorted."""
    table = pa.concat_tables([pq.read_table(path) for path in manifests])
    return sorted(table.to_pylist(), key=lambda row: row["name"])


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, photo: Write) -> Path:
    """Fourteen photos of several sizes and kinds; two of them are the same."""
    folder = tmp_path_factory.mktemp("album")
    for i in range(9):
        photo(folder / f"{i:02}.jpg", i, size=(48 + 4 * i, 64))
    photo(folder / "sub" / "größe.png", 20)
    photo(folder / "sub" / "tiny.png", size=(2, 3))
    pixels = np.asarray(Image.open(folder / "00.jpg").convert("L"))
    Image.fromarray(pixels).save(folder / "grey.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(folder / "deep.png")
    shutil.copy(folder / "03.jpg", folder / "twin.jpg")
    return folder


@pytest.fixture(scope="module")
def whole(album: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The album degraded in one go: `lq` and `pairs.parquet`."""
    folder = tmp_path_factory.mktemp("whole")
    asked = ("-i", album, "--recursive", "-o", folder / "lq", "--seed", "5", "--workers", "1")
    assert call(*asked, "--pairs-out", folder / "pairs.parquet") == ExitCode.OK
    return folder


@pytest.mark.parametrize(
    "shards", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 4, 5, 6, 7, 8, 11, 40))]
)
def test_runs_that_share_the_work_give_the_same_bytes(
    album: Path, whole: Path, tmp_path: Path, shards: int
) -> None:
    first, expected = tree(whole / "lq"), rows(whole / "pairs.parquet")
    assert len(first) == len(expected) == 14
    manifests = [tmp_path / f"{i}.parquet" for i in range(shards)]
    for i in sorted(range(shards), key=lambda i: i * 7 % 11):
        asked = ("-i", album, "--recursive", "-o", tmp_path / "lq", "--seed", "5", "--workers", "1")
        mine = ("--shard", f"{i}/{shards}", "--pairs-out", manifests[i])
        assert call(*asked, *mine) == ExitCode.OK
    assert tree(tmp_path / "lq") == first
    assert rows(*manifests) == expected
    parts = [len(rows(manifest)) for manifest in manifests]
    assert max(parts) < 14 or shards == 1


def test_processes_and_folders_do_not_matter(
    call_hbr: Run, album: Path, whole: Path, tmp_path: Path
) -> None:
    first = {hashlib.sha256(data).hexdigest() for data in tree(whole / "lq").values()}
    for path in album.rglob("*.*"):
        place = tmp_path / "moved" / path.stem[-1] / f"renamed {path.name}"
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    pairs = tmp_path / "pairs.parquet"
    done = call_hbr(
        *("degrade", "-i", tmp_path / "moved", "--recursive", "-o", tmp_path / "lq"),
        *("--seed", "5", "--workers", "3", "--pairs-out", pairs),
    )
    assert (done.returncode, done.stderr) == (0, "hbr: 14 done\n")
    assert sorted(done.stdout.splitlines()) == sorted(
        str(tmp_path / "lq" / row["name"]) for row in rows(pairs)
    )
    again = {hashlib.sha256(data).hexdigest() for data in tree(tmp_path / "lq").values()}
    assert again == first


def test_a_row_makes_its_pair_again(album: Path, whole: Path) -> None:
    table = rows(whole / "pairs.parquet")
    for row in table:
        hq, lq = album / row["hq"], whole / "lq" / row["name"]
        assert hashlib.sha256(hq.read_bytes()).hexdigest() == row["hq_sha256"]
        assert hashlib.sha256(lq.read_bytes()).hexdigest() == row["lq_sha256"]
        photo = read_photo(hq)
        assert (photo.size, read_photo(lq).size) == ((row["height"], row["width"]),) * 2
        drawn = from_dict(Degradation, json.loads(row["degradation"]))
        image = (photo.tensor() * 255).round() / 255
        made = degrade(image, [drawn])[0]
        pixels = (made * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(pixels, read_photo(lq).pixels)
    drawn = {row["degradation"] for row in table}
    assert len(drawn) == 13  # the twins are one
    assert {(row["recipe"], row["seed"], row["status"]) for row in table} == {
        ("real-esrgan", 5, "ok")
    }
    before = torch.tensor(np.asarray(Image.open(album / "00.jpg")).astype(float))
    after = torch.tensor(np.asarray(Image.open(whole / "lq" / "00.png")).astype(float))
    assert (before - after).abs().mean() > 3


@pytest.mark.slow
def test_stopped_and_killed_runs_go_on(
    call_hbr: Run, hbr_command: list[str], photo: Write, tmp_path: Path
) -> None:
    for i in range(60):
        photo(tmp_path / "hq" / f"{i:02}.jpg", i, size=(160, 120))
    out, pairs = tmp_path / "lq", tmp_path / "pairs.parquet"
    asked = ["degrade", "-i", str(tmp_path / "hq"), "--workers", "2", "-o"]
    command = [*hbr_command, *asked, str(out), "--resume", "--pairs-out", str(pairs)]
    ready: dict[str, bytes] = {}
    recorded = 0
    for number in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            told = [process.stdout.readline().strip() for _ in range(5)]
            workers = psutil.Process(process.pid).children(recursive=True)
            assert len(workers) >= 2
            process.send_signal(number)
            stderr = process.communicate(timeout=60)[1]
        psutil.wait_procs(workers, timeout=30)
        assert not any(worker.is_running() for worker in workers)
        if number != signal.SIGKILL:
            assert process.returncode == ExitCode.INTERRUPTED
            assert stderr.count("\n") == 1, stderr
            assert "done; run the same command with --resume to continue" in stderr
        assert not pairs.exists()
        now = tree(out)
        if number == signal.SIGKILL:  # what was being degraded, which the next run removes
            now = {
                name: data for name, data in now.items() if not name.endswith(".claim.part.lock")
            }
        assert all(Path(name).exists() for name in told)
        assert all(now[name] == data for name, data in ready.items())
        recorded += 5
        assert recorded <= len(now) < 60
        assert all(name.endswith(".png") for name in now), "something half written is left"
        ready = now
    journal = out / ".hbr-degrade.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"name": "59.png", "hq": "59')  # torn
    done = call_hbr(*command[1:])
    assert (done.returncode, done.stderr) == (0, "hbr: 60 done\n")
    assert len(done.stdout.splitlines()) <= 60 - 15
    assert call(*asked[1:-2], "1", "-o", tmp_path / "b", "--pairs-out", tmp_path / "b.parquet") == 0
    assert tree(tmp_path / "b") == tree(out)
    assert rows(tmp_path / "b.parquet") == rows(pairs)


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory, photo: Write) -> Path:
    """Forty photos in `hq`, which one process has degraded in `alone`."""
    folder = tmp_path_factory.mktemp("forty")
    for i in range(40):
        photo(folder / "hq" / f"{i:02}.jpg", i, size=(160, 120))
    asked = ("--resume", "--workers", "1", "-o", folder / "alone")
    assert call(folder / "hq", *asked) == ExitCode.OK
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_two_runs_at_once_share_the_work(
    hbr_command: list[str], forty: Path, tmp_path: Path, workers: str
) -> None:
    asked = ["degrade", str(forty / "hq"), "--resume", "--workers", workers, "-o"]
    command = [*hbr_command, *asked, "lq", "--pairs-out"]
    runs = [
        subprocess.Popen(
            [*command, f"{name}.parquet"], cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    told = [run.communicate(timeout=300)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert sorted(told[0] + told[1]) == [f"lq/{i:02}.png" for i in range(40)], "each is made once"
    assert tree(tmp_path / "lq") == tree(forty / "alone")
    assert rows(tmp_path / "one.parquet") == rows(tmp_path / "two.parquet")
    left = {path.name for path in (tmp_path / "lq").iterdir() if path.suffix != ".png"}
    assert left == {".hbr-degrade.jsonl"}


def test_resume_makes_again_what_differs(album: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(album, tmp_path / "hq")
    shutil.copytree(whole / "lq", tmp_path / "lq")
    first = tree(tmp_path / "lq")
    asked = ("-i", tmp_path / "hq", "--recursive", "-o", tmp_path / "lq", "--workers", "1")

    def remade(*more: str | Path) -> set[str]:
        """What a resumed run writes."""
        for path in (tmp_path / "lq").rglob("*.png"):
            os.utime(path, (1, 1))
        assert call(*asked, "--resume", *more) == ExitCode.OK
        lq = tmp_path / "lq"
        return {p.relative_to(lq).as_posix() for p in lq.rglob("*.png") if p.stat().st_mtime != 1}

    assert remade("--seed", "5") == set()
    (tmp_path / "lq" / "00.png").unlink()
    (tmp_path / "lq" / "01.png").write_bytes(b"another picture")
    shutil.copy(album / "04.jpg", tmp_path / "hq" / "02.jpg")
    # in another sharding, which is another journal
    assert remade("--seed", "5", "--shard", "0/1") == {"00.png", "01.png", "02.png"}
    assert tree(tmp_path / "lq") == {**first, "02.png": first["04.png"]}
    assert len(remade("--seed", "6")) == 14
    assert len(remade("--seed", "6", "--recipe", "light")) == 14
    assert len(remade("--seed", "6", "--recipe", "light", "--strength", "0.5")) == 14
    assert remade("--seed", "6", "--recipe", "light", "--strength", "0.5") == set()


def test_what_exists_is_refused(call_hbr: Run, album: Path, tmp_path: Path) -> None:
    asked = ("degrade", "-i", album, "-o", tmp_path / "lq", "--workers", "1")
    (tmp_path / "lq").mkdir()
    (tmp_path / "lq" / "00.png").write_bytes(b"mine")
    done = call_hbr(*asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"hbr: {tmp_path / 'lq' / '00.png'} exists; "
        "--resume keeps what is finished, --overwrite makes it again\n"
    )
    assert tree(tmp_path / "lq") == {"00.png": b"mine"}
    assert call(*asked[1:], "--overwrite") == ExitCode.OK
    assert len(tree(tmp_path / "lq")) == 12
    # HQ itself is never written over
    shutil.copytree(album / "sub", tmp_path / "own")
    before = tree(tmp_path / "own")
    for more in ((), ("--overwrite",), ("--resume",)):
        with pytest.raises(ValueError, match="written over itself"):
            call("-i", tmp_path / "own", "-o", tmp_path / "own", *more)
    assert tree(tmp_path / "own") == before


def test_bad_files_among_good_ones(call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    folder = tmp_path / "hq"
    data = photo(folder / "z good.jpg").read_bytes()
    photo(folder / "good.png", 1)
    (folder / "cut.jpg").write_bytes(data[: len(data) // 2])
    (folder / "text.jpg").write_text("Dear diary,")
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "anim.gif").write_bytes(b"GIF89a")
    os.mkfifo(folder / "pipe.png")
    pairs = tmp_path / "pairs.parquet"
    done = call_hbr("degrade", "-i", folder, "-o", tmp_path / "lq", "--pairs-out", pairs)
    assert done.returncode == ExitCode.SOME
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert lines[-1] == "hbr: 2 done, 5 failed"
    assert [line.split(": ")[1] for line in lines[:-1]] == [
        *("anim.gif", "cut.jpg", "pipe.png", "text.jpg", "zero.jpg")
    ]
    assert set(tree(tmp_path / "lq")) == {"good.png", "z good.png"}
    table = rows(pairs)
    failed = [row for row in table if row["status"] == "failed"]
    assert [row["hq"] for row in failed] == [line.split(": ")[1] for line in lines[:-1]]
    assert [f"hbr: {row['error']}" for row in failed] == lines[:-1]
    assert all(row["lq_sha256"] is None for row in failed)
    # each is told of by one shard alone, also what has no content to hash
    told = []
    for i in range(3):
        part = tmp_path / f"{i}.parquet"
        call("-i", folder, "-o", tmp_path / "b", "--shard", f"{i}/3", "--pairs-out", part)
        told += rows(part)
    assert sorted(told, key=lambda row: row["name"]) == table
    # a file that is mended is done by the next run
    (folder / "zero.jpg").write_bytes(data)
    done = call_hbr("degrade", "-i", folder, "-o", tmp_path / "lq", "--resume")
    assert done.stdout.splitlines() == [str(tmp_path / "lq" / "zero.png")]


def test_a_name_that_is_not_utf8(photo: Write, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    photo(tmp_path / "hq" / name)
    pairs = tmp_path / "pairs.parquet"
    assert call("-i", tmp_path / "hq", "-o", tmp_path / "lq", "--pairs-out", pairs) == 0
    assert list(tree(tmp_path / "lq")) == [name]
    assert [row["hq"] for row in rows(pairs)] == ["caf\\udce9.png"]


def test_none_of_the_files_is_good(call_hbr: Run, tmp_path: Path) -> None:
    (tmp_path / "hq").mkdir()
    done = call_hbr("degrade", "-i", tmp_path / "hq", "-o", tmp_path / "lq")
    assert done.returncode == ExitCode.NOTHING
    assert done.stderr.startswith(f"hbr: {tmp_path / 'hq'}: holds no photographs")


def test_a_clash_is_found_before_any_work(call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    photo(tmp_path / "hq" / "a.jpg")
    photo(tmp_path / "hq" / "a.png")
    photo(tmp_path / "hq" / "b.png")
    done = call_hbr("degrade", "-i", tmp_path / "hq", "-o", tmp_path / "lq")
    assert (done.returncode, done.stdout) == (2, "")
    assert "a.jpg and " in done.stderr
    assert "would both be written to" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "lq").exists()


def test_one_file_and_the_size_of_lq(photo: Write, tmp_path: Path) -> None:
    photo(tmp_path / "a.png", size=(102, 61))
    assert call("-i", tmp_path / "a.png", "-o", tmp_path / "new" / "b.tif", "--format", "tif") == 0
    assert read_photo(tmp_path / "new" / "b.tif").size == (61, 102)
    assert set(tree(tmp_path)) == {"a.png", "new/b.tif"}
    assert not list(tmp_path.rglob(".*"))
    assert call("-i", tmp_path / "a.png", "-o", tmp_path / "small.png", "--keep-small") == 0
    assert read_photo(tmp_path / "small.png").size == (15, 25)


def coco(folder: Path, name: str, size: tuple[int, int], box: list[float]) -> Path:
    """A file of people with one person in one photo."""
    file = folder / "people.json"
    values = {
        "images": [{"id": 1, "file_name": name, "width": size[0], "height": size[1]}],
        "annotations": [{"id": 7, "image_id": 1, "category_id": 1, "bbox": box}],
        "categories": [{"id": 1, "name": "person"}],
    }
    file.write_text(json.dumps(values))
    return file


MOTION_ONLY = """
motion: {count: [1, 1], places: [1, 0], person_prob: 1.0, length: [0.2, 0.2]}
"""


def test_motion_blur_falls_on_people(call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / "hq" / name, ord(name[0]), size=(200, 160))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(MOTION_ONLY)
    people = coco(tmp_path, "a.png", (200, 160), [20, 20, 60, 120])
    pairs = tmp_path / "pairs.parquet"
    done = call_hbr(
        *("degrade", "-i", tmp_path / "hq", "-o", tmp_path / "lq", "--recipe", recipe),
        *("--people", people, "--pairs-out", pairs),
    )
    assert done.returncode == ExitCode.OK
    assert done.stderr == (
        "hbr: 1 of 2 have no annotated people (--people): "
        "motion blur was applied in random places\nhbr: 2 done\n"
    )
    assert [row["people"] for row in rows(pairs)] == [1, 0]
    before, after = (read_photo(tmp_path / f / "a.png").pixels.astype(int) for f in ("hq", "lq"))
    changed = np.abs(before - after).mean(axis=2)
    assert changed[60:100, 40:60].mean() > 2
    assert changed[:, 130:].max() == 0


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--recipe", "realesrgan"), "one of real-esrgan, "),
        (("--recipe", "none.yaml"), "none.yaml: No such file"),
        (("--shard", "4/4"), "from 0 to 3"),
        (("--shard", "1"), "i/n"),
        (("--strength", "2"), "strength is 2.0; it must be in [0, 1]"),
        (("--pairs-out", "pairs.csv"), ".parquet"),
        (("--resume", "--overwrite"), "choose one"),
        (("--people", "people.json"), "no motion blur"),
        (("--people", "people.json", "--recipe", "motion-blur"), "has no people in these photos"),
        (("--people", "gone.json", "--recipe", "motion-blur"), "gone.json: No such file"),
        (("--people", "hq/a.png", "--recipe", "motion-blur"), "is not a COCO file"),
    ],
)
def test_wrong_usage_does_nothing(
    photo: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: tuple[str], told: str
) -> None:
    photo(tmp_path / "hq" / "a.png")
    coco(tmp_path, "other.png", (48, 40), [1, 1, 9, 9])
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, typer.BadParameter)) as raised:
        call("-i", "hq", "-o", "lq", *more)
    line, code = _describe(raised.value)
    assert told in line
    assert code == ExitCode.USAGE
    assert not (tmp_path / "lq").exists()


def test_the_masks_of_a_crowd_stay_small() -> None:
    edges = {n: longest_mask(n) for n in (1, 20, 80, 400)}
    assert edges == {1: 1024, 20: 1024, 80: 512, 400: 229}


def test_people_of_another_photo_fail_alone(photo: Write, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / "hq" / name)
    people = coco(tmp_path, "a.png", (400, 500), [1, 1, 9, 9])
    pairs = tmp_path / "pairs.parquet"
    asked = ("-i", tmp_path / "hq", "-o", tmp_path / "lq", "--recipe", "motion-blur")
    assert call(*asked, "--people", people, "--pairs-out", pairs) == ExitCode.SOME
    bad, good = rows(pairs)
    assert bad["error"] == (
        "a.png: its people are annotated for 400x500, but it is 48x40; "
        "take the photo that was annotated"
    )
    assert good["status"] == "ok"


def test_a_worker_that_is_killed_ends_the_run_in_one_line(
    hbr_command: list[str], photo: Write, tmp_path: Path
) -> None:
    for i in range(60):
        photo(tmp_path / "hq" / f"{i:02}.jpg", i, size=(160, 120))
    command = [*hbr_command, "degrade", "-i", str(tmp_path / "hq"), "-o", str(tmp_path / "lq")]
    with subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        # the workers are children of the process that has imported everything for them
        (server,) = (c for c in psutil.Process(process.pid).children() if c.children())
        workers = server.children()
        assert len(workers) == 2
        workers[-1].kill()
        stderr = process.communicate(timeout=60)[1]
    assert process.returncode == ExitCode.MEMORY
    assert stderr.startswith("hbr: a process of the run was killed")
    assert stderr.count("\n") == 1
    deadline = time.monotonic() + 30
    while any(w.is_running() for w in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(w.is_running() for w in workers)
