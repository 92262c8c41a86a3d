"""`hbr restore --engine ray` as a command, with a Ray of its own on one core."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.png")}


def test_a_manifest_on_a_cluster_gives_the_bytes_of_one_process(
    run_hbr: Run, call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    names = [f"{number % 2}/{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        photo(tmp_path / "in" / name, number)
    (tmp_path / "in" / "bad.png").write_bytes(b"nothing")
    (tmp_path / "in" / "list.txt").write_text("\n".join([*names[:5], "bad.png"]))
    asked = ["restore", "--manifest", "in/list.txt", "--model", str(toy), "--color", "adain"]
    asked += ["--temporal-color", "--threads", "1", "-o"]
    cluster = ["--engine", "ray", "--workers", "1", "--resume-by", "content"]
    done = run_hbr(*asked, "out", *cluster, "--log-format", "json", cwd=tmp_path, timeout=280)
    assert done.returncode == 3, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted(r["status"] for r in records) == ["failed", *["restored"] * 5]
    assert "is not a photograph" in done.stderr
    here = call_hbr(*asked, "here", cwd=tmp_path)
    assert here.returncode == 3, here.stderr
    assert tree(tmp_path / "out") == tree(tmp_path / "here")
    assert sorted(tree(tmp_path / "out")) == sorted(names[:5])
    # what the cluster has recorded is finished for one process
    again = call_hbr(*asked, "out", "--resume-by", "content", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (3, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", "2"), "only valid with --engine ray"),
        (("--engine", "ray", "--device", "cuda:1"), "Ray gives each actor its own GPU"),
        (("--engine", "ray", "--report", "x.html"), "only valid with --engine local"),
        (("--engine", "ray", "--ray-address", "ray://x:1"), "address"),
        (("--temporal-color", "--color", "none"), "only valid with --color adain"),
        (("--shard", "2/2"), "index"),
        (("--shard", "half"), "i from 0 to n-1, as in 0/4"),
    ],
)
def test_wrong_usage_does_nothing(
    call_hbr: Run, photo: Write, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    photo(tmp_path / "a.png")
    done = call_hbr("restore", "a.png", "-o", "out", *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_shard_of_a_stream_is_refused(call_hbr: Run, photo: Write, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    done = call_hbr("restore", "a.png", "-o", "-", "--shard", "0/2", cwd=tmp_path)
    assert done.returncode == 2
    assert "- stands for one photo; name files" in done.stderr


def test_a_colour_fix_without_statistics_is_said(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png")
    asked = ["restore", "a.png", "--model", toy, "-o"]
    done = call_hbr(*asked, "steady.png", "--temporal-color", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "steady.png\n")
    assert done.stderr.endswith("its colour fix, wavelet, takes no statistics to keep\n")
    assert call_hbr(*asked, "plain.png", cwd=tmp_path).returncode == 0
    assert (tmp_path / "steady.png").read_bytes() == (tmp_path / "plain.png").read_bytes()
