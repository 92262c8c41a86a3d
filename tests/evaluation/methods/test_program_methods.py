"""Programs outside hbr: their layouts, their failures, real processes that are killed for real."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from hbr.config import ConfigError
from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.base import MethodError, MethodOutcome
from hbr.evaluation.methods.config import ProgramConfig, ProgramSpec
from hbr.evaluation.methods.method import Method
from hbr.evaluation.methods.result_folder import LEDGER
from hbr.ledger import Ledger, Row

Peer = Callable[..., Method]
Photos = dict[str, Path]
ALL = 5


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def failures(outcome: MethodOutcome) -> str:
    """The only line that failed."""
    (line,) = outcome.failed.values()
    return line


def check_whole(outcome: MethodOutcome, out: Path, lq: Photos) -> None:
    """What is restored is there, opens, and equals the input (the program's work at factor 1)."""
    assert set(outcome.restored) | set(outcome.failed) == set(lq)
    assert not set(outcome.restored) & set(outcome.failed)
    for stem, path in outcome.restored.items():
        assert path == out / f"{stem}.png"
        assert np.array_equal(pixels(path), pixels(lq[stem]))
    for stem in outcome.failed:
        assert not (out / f"{stem}.png").exists()


@pytest.mark.parametrize(
    ("write", "pattern"),
    [
        ("NAME.png", "output/{name}.png"),  # most
        ("sample00/NAME.png", "output/sample00/{name}.png"),  # SeeSR
        ("NAME_out.png", "output/{name}_out.png"),  # Real-ESRGAN
        ("NAME_SwinIR.png", "output/{name}_SwinIR.png"),
        ("NAME_0.png", "output/{name}_*.png"),  # SUPIR
        ("TIME/NAME.png", "output/*/{name}.png"),
        ("NAME_TIME.png", "output/{name}_*.png"),
        ("NAME.bmp", "output/{name}.*"),
        ("../output_x4/NAME.png", "output*/{name}.png"),  # a folder beside the one asked for
    ],
)
def test_layouts(peer: Peer, lq: Photos, tmp_path: Path, write: str, pattern: str) -> None:
    out = tmp_path / "out"
    outcome = peer("--write", write, spec={"outputs": (pattern,)}).run(lq, out)
    assert not outcome.failed
    check_whole(outcome, out, lq)
    assert outcome.seconds > 0


def test_a_program_that_writes_where_it_runs(repo: Path, lq: Photos, tmp_path: Path) -> None:
    spec = ProgramSpec(
        command=("{python}", "{repo}/peer.py", "--input", "{input}", "--output", "results/x4"),
        outputs=("results/x4/{name}.png",),
        workdir="run",
        factor=1,
    )
    outcome = build_method(ProgramConfig(program=spec, python=sys.executable, repo=repo)).run(
        lq, tmp_path / "out"
    )
    assert not outcome.failed
    assert [p.name for p in repo.iterdir()] == ["peer.py"]


def test_the_exit_code_counts_for_nothing(peer: Peer, lq: Photos, tmp_path: Path) -> None:
    assert not peer("--do", "fails at the end").run(lq, tmp_path / "a").failed
    outcome = peer("--do", "nothing").run(lq, tmp_path / "b")
    assert set(outcome.failed) == set(lq)
    assert all(
        "no result; the program ended with exit code 0" in v for v in outcome.failed.values()
    )


def test_a_result_without_its_line_is_a_failure(
    peer: Peer, lq: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Ledger.append

    def on_full_disk(ledger: Ledger, *rows: Row) -> int:
        if any(row.get("stem") == "a" for row in rows):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(ledger, *rows)

    monkeypatch.setattr(Ledger, "append", on_full_disk)
    outcome = peer().run(lq, tmp_path / "out")
    assert outcome.failed == {"a": os.strerror(errno.ENOSPC)}
    assert set(outcome.restored) == {*lq} - {"a"}


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("skip", "no result; the program ended with exit code 0"),
        ("size", "the result is 53×37 pixels; expected were 56×40"),
        ("empty", "is empty"),
        ("truncated", "damaged or cut short"),
        ("text", "is not a photograph"),
    ],
)
def test_one_bad_result_costs_itself(
    peer: Peer, lq: Photos, tmp_path: Path, do: str, says: str
) -> None:
    outcome = peer("--do", do).run(lq, tmp_path / "out")
    assert len(outcome.restored) == ALL - 1
    assert says in failures(outcome)
    assert "\n" not in failures(outcome)
    check_whole(outcome, tmp_path / "out", lq)


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("crash", "exit code 1, its last words: RuntimeError: CUDA out of memory"),
        ("die", "killed by SIGKILL"),
        ("hang", "killed after 2 s, its limit, its last words: thinking"),
    ],
)
def test_half_of_the_results_are_kept_and_the_rest_is_resumed(
    peer: Peer, lq: Photos, tmp_path: Path, starts: Callable[[], list[int]], do: str, says: str
) -> None:
    out = tmp_path / "out"
    limit = {"start_seconds": 1.0, "image_seconds": 0.2} if do == "hang" else {}
    once = ("--do", do, "--at", "2", "--once", str(tmp_path / "once"))
    outcome = peer(*once, **limit).run(lq, out)
    assert len(outcome.restored) == 2
    check_whole(outcome, out, lq)
    assert all(says in line for line in outcome.failed.values())
    before = {stem: path.stat().st_mtime_ns for stem, path in outcome.restored.items()}

    again = peer(*once, **limit).run(lq, out)
    assert not again.failed
    check_whole(again, out, lq)
    assert starts() == [ALL, ALL - 2], "only what is missing is given again"
    assert all(again.restored[stem].stat().st_mtime_ns == t for stem, t in before.items())


def test_silence_is_a_hang(peer: Peer, lq: Photos, tmp_path: Path) -> None:
    """Long before the limit of many images is over."""
    outcome = peer("--do", "hang", "--at", "2", quiet_seconds=1.0).run(lq, tmp_path / "out")
    assert len(outcome.restored) == 2
    assert all("of which it wrote nothing for 1 s" in line for line in outcome.failed.values())
    # one that goes on writing is not silent
    slow = peer("--do", "slow", quiet_seconds=1.0).run(lq, tmp_path / "slow")
    assert not slow.failed
    assert slow.seconds > 1.2


def test_a_second_attempt_gets_what_is_missing(
    peer: Peer, lq: Photos, tmp_path: Path, starts: Callable[[], list[int]]
) -> None:
    once = ("--do", "crash", "--at", "2", "--once", str(tmp_path / "once"))
    outcome = peer(*once, attempts=2).run(lq, tmp_path / "out")
    assert not outcome.failed
    assert starts() == [ALL, ALL - 2]


def test_a_bad_input_costs_itself(peer: Peer, lq: Photos, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no photo")
    outcome = peer().run({**lq, "bad": bad, "gone": tmp_path / "gone.png"}, tmp_path / "out")
    assert set(outcome.failed) == {"bad", "gone"}
    assert len(outcome.restored) == ALL
    assert "No such file" in outcome.failed["gone"]


def test_a_broken_program_is_not_started_forever(
    peer: Peer, lq: Photos, tmp_path: Path, starts: Callable[[], list[int]]
) -> None:
    outcome = peer("--do", "nothing", at_once=1, attempts=5).run(lq, tmp_path / "out")
    assert starts() == [1, 1, 1]
    assert (
        sorted(line[:9] for line in outcome.failed.values())
        == ["no result"] * 3 + ["not tried"] * 2
    )


def test_one_at_a_time_keeps_the_rest(
    peer: Peer, lq: Photos, tmp_path: Path, starts: Callable[[], list[int]]
) -> None:
    once = ("--do", "crash", "--at", "0", "--once", str(tmp_path / "once"))
    outcome = peer(*once, at_once=1).run(lq, tmp_path / "out")
    assert len(outcome.failed) == 1
    assert starts() == [1] * ALL


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_a_program_started_ends_with_it(
    peer: Peer, repo: Path, lq: Photos, tmp_path: Path
) -> None:
    method = peer("--do", "hang with a child", start_seconds=1.5, image_seconds=0.1)
    assert len(method.run(lq, tmp_path / "out").restored) == 1
    assert not is_alive(int((repo / "child").read_text()))


def test_files_that_come_and_go_disturb_nothing(repo: Path, lq: Photos, tmp_path: Path) -> None:
    """Scratch folders while it runs, and a process of its own that writes on after its end."""
    litter = """
import os, shutil, subprocess, sys, tempfile, time
folder, target = sys.argv[1:]
if target == "for ever":
    until = time.monotonic() + 6
    while time.monotonic() < until:
        inside = os.path.join(folder, "scratch", str(time.monotonic_ns()))
        os.makedirs(inside)
        open(os.path.join(inside, "x"), "w").close()
        if time.monotonic_ns() % 3:
            shutil.rmtree(inside)
    sys.exit()
subprocess.Popen([sys.executable, __file__, target, "for ever"], start_new_session=True)
until = time.monotonic() + 2
while time.monotonic() < until:
    print("works", flush=True)
    time.sleep(0.05)
for name in os.listdir(folder):
    shutil.copy(os.path.join(folder, name), target)
"""
    (repo / "litter.py").write_text(litter)
    spec = ProgramSpec(command=("{python}", "litter.py", "{input}", "{output}"), factor=1)
    config = ProgramConfig(program=spec, python=sys.executable, repo=repo, quiet_seconds=0.4)
    outcome = build_method(config).run(lq, tmp_path / "out")
    assert not outcome.failed
    check_whole(outcome, tmp_path / "out", lq)


def test_a_name_that_is_not_utf8(peer: Peer, lq: Photos, tmp_path: Path) -> None:
    stem = os.fsdecode(b"caf\xe9")
    outcome = peer().run({stem: lq["a"]}, tmp_path / "out")
    assert list(outcome.restored) == [stem]
    assert "caf\\udce9" in (tmp_path / "out" / ".work" / "run-001.log").read_text("utf-8")


RUN = """
import json, sys
from pathlib import Path
from hbr.config import from_dict
from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.config import ProgramConfig
job = json.loads(sys.argv[1])
method = build_method(from_dict(ProgramConfig, job["config"]))
inputs = {stem: Path(path) for stem, path in job["inputs"].items()}
print("failed", len(method.run(inputs, Path(job["out"])).failed))
"""


def job(repo: Path, lq: Photos, out: Path, *words: str) -> list[str]:
    ends = ["--input", "{input}", "--output", "{output}"]
    program = {"command": ["{python}", "peer.py", *ends, *words], "factor": 1}
    config = {"kind": "program", "program": program, "python": sys.executable, "repo": str(repo)}
    inputs = {stem: str(path) for stem, path in lq.items()}
    told = json.dumps({"config": config, "inputs": inputs, "out": str(out)})
    return [sys.executable, "-c", RUN, told]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_another_method_left_is_not_taken_over(
    repo: Path, lq: Photos, tmp_path: Path, peer: Peer, starts: Callable[[], list[int]]
) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(job(repo, lq, out, "--do", "hang", "--at", "3"))
    wait_for(lambda: len(list(out.glob(".work/run-*/output/*.png"))) == 3)
    process.kill()
    process.wait()
    assert not peer("--seed", "8").run(lq, out).failed
    assert starts() == [ALL, ALL]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    repo: Path, lq: Photos, tmp_path: Path, starts: Callable[[], list[int]], number: signal.Signals
) -> None:
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    words = ("--do", "hang with a child", "--at", "3", "--once", str(tmp_path / "once"))
    process = subprocess.Popen(job(repo, lq, out, *words), stderr=subprocess.PIPE)
    wait_for((repo / "child").exists)
    wait_for(lambda: bool((repo / "child").read_text()))
    assert len(list(out.glob(".work/run-*/output/*.png"))) == 3
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0
    assert not [p for p in out.rglob("*.png") if ".work" not in p.parts], "none was taken over yet"
    child = int((repo / "child").read_text())
    # nobody can act on SIGKILL: the program lives on, until the next run ends it
    assert is_alive(child) == (number == signal.SIGKILL)

    again = subprocess.run(job(repo, lq, out, *words), capture_output=True, text=True, check=True)
    assert again.stdout == "failed 0\n"
    assert not is_alive(child)
    assert starts() == [ALL, ALL - 3], "the three that were whole are taken over"
    assert not list(out.glob(".work/run-*/"))

    (tmp_path / "once").touch()
    subprocess.run(job(repo, lq, undisturbed, *words), check=True, capture_output=True)
    for stem in lq:
        name = f"{stem}.png"
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()


def test_two_runs_do_not_share_a_folder(repo: Path, lq: Photos, tmp_path: Path, peer: Peer) -> None:
    out = tmp_path / "out"
    words = ("--do", "slow")
    process = subprocess.Popen(job(repo, lq, out, *words), stdout=subprocess.PIPE, text=True)
    wait_for(lambda: bool(list(out.glob(".work/run-*/output/*.png"))))
    with pytest.raises(MethodError, match="another run is at work"):
        peer(*words).run(lq, out)
    assert process.communicate()[0] == "failed 0\n"


@pytest.mark.parametrize(
    ("feed", "seen", "native"), [("full", (56, 40), (224, 160)), ("small", (14, 10), (56, 40))]
)
def test_a_fixed_factor(
    peer: Peer,
    lq: Photos,
    tmp_path: Path,
    feed: str,
    seen: tuple[int, int],
    native: tuple[int, int],
) -> None:
    """×4 on LQ that has the size of HQ already: both ways end at that size."""
    a = {"a": lq["a"]}
    method = peer("--upscale", "4", spec={"factor": 4}, input=feed)
    outcome = method.run(a, tmp_path / "out")
    image = Image.open(lq["a"])
    small = image if feed == "full" else image.resize(seen, Image.Resampling.BICUBIC)
    assert small.size == seen
    made = small.resize(native)
    expected = made.resize((56, 40), Image.Resampling.BICUBIC) if feed == "full" else made
    assert np.array_equal(pixels(outcome.restored["a"]), np.asarray(expected))


def test_an_adjustable_factor(peer: Peer, lq: Photos, tmp_path: Path) -> None:
    words = ("--upscale", "{upscale}", "--seed", "{seed}")
    a = {"a": lq["a"]}
    outcome = peer(*words, spec={"factor": None}, scale=2.0, seed=7).run(a, tmp_path / "out")
    assert pixels(outcome.restored["a"]).shape == (80, 112, 3)
    (log,) = (tmp_path / "out" / ".work").glob("*.log")
    assert "'--upscale', '2', '--seed', '7'" in log.read_text()
    assert log.read_text().startswith(f"$ {sys.executable} peer.py --input ")
    assert " is a\n" in log.read_text()
    small = peer(*words, spec={"factor": None}, upscale=4.0, input="small", seed=7)
    assert pixels(small.run(a, tmp_path / "b").restored["a"]).shape == (40, 56, 3)


def test_rounded_sizes_are_taken_if_asked_for(peer: Peer, lq: Photos, tmp_path: Path) -> None:
    a = {"a": tmp_path / "a.png"}
    Image.open(lq["a"]).resize((403, 402)).save(a["a"])
    strict = peer("--do", "multiples of 8").run(a, tmp_path / "strict")
    assert "the result is 400×400 pixels; expected were 403×402" in failures(strict)
    taken = peer("--do", "multiples of 8", resize=True).run(a, tmp_path / "taken")
    assert pixels(taken.restored["a"]).shape == (402, 403, 3)
    other = peer("--do", "size", resize=True).run(lq, tmp_path / "other")
    assert "the result is 53×37" in failures(other), "other proportions are another picture"


def test_programs_see_plain_pixels(peer: Peer, tmp_path: Path) -> None:
    """Grey, alpha, orientation and profile reach no program; 8-bit RGB does (it checks)."""
    grey, upright = tmp_path / "grey.png", tmp_path / "turned.jpg"
    Image.new("LA", (24, 16), (90, 200)).save(grey)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (24, 16), "red").save(upright, exif=exif)
    outcome = peer().run({"grey": grey, "turned": upright}, tmp_path / "out")
    assert not outcome.failed
    assert pixels(outcome.restored["grey"]).tolist() == np.full((16, 24, 3), 90).tolist()
    assert pixels(outcome.restored["turned"]).shape == (24, 16, 3)


def test_several_results_for_one_input(repo: Path, peer: Peer, lq: Photos, tmp_path: Path) -> None:
    (repo / "twice.py").write_text(
        "import shutil, sys, pathlib\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    for number in range(2):\n"
        "        shutil.copy(path, f'{sys.argv[2]}/{path.stem}_{number}.png')\n"
    )
    command = ("{python}", "twice.py", "{input}", "{output}")
    method = peer(spec={"command": command, "outputs": ("output/{name}_*.png",)})
    assert "2 files could be the result" in failures(method.run({"a": lq["a"]}, tmp_path / "a"))
    first = peer(spec={"command": command, "outputs": ("output/{name}_0.png",)})
    assert not first.run({"a": lq["a"]}, tmp_path / "b").failed


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"python": "no-such-python"}, "python is 'no-such-python', which is not there"),
        ({"python": "."}, "a folder without an interpreter"),
        ({"repo": Path("gone")}, "repo is 'gone', which is not a folder; pip install it"),
        ({"needs": ("weights/x.pth",)}, "x.pth is missing; pip install it"),
        ({"command": ("./no-such-program", "{input}", "{output}")}, "cannot be started"),
    ],
)
def test_what_is_missing_is_named(
    repo: Path, lq: Photos, tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    spec = {"command": ("{python}", "peer.py", "{input}", "{output}"), "factor": 1}
    spec |= {k: settings.pop(k) for k in ("needs", "command") if k in settings}
    program = ProgramSpec(install="pip install\n  it", **spec)  # type: ignore[arg-type]
    config = {"python": sys.executable, "repo": repo, **settings}
    method = build_method(ProgramConfig(program=program, **config))  # type: ignore[arg-type]
    with pytest.raises(MethodError) as caught:
        method.run(lq, tmp_path / "out")
    assert says in str(caught.value)


def test_finished_work_needs_no_program(peer: Peer, repo: Path, lq: Photos, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = peer().run(lq, out)
    (repo / "peer.py").unlink()
    again = peer().run(lq, out)
    assert again.restored == first.restored
    assert again.seconds == pytest.approx(first.seconds)
    assert again.provenance == first.provenance


def test_a_changed_input_is_done_again(
    peer: Peer, lq: Photos, tmp_path: Path, starts: Callable[[], list[int]]
) -> None:
    inputs = {stem: tmp_path / f"{n}.png" for n, stem in enumerate(lq)}
    for stem, path in inputs.items():
        path.write_bytes(lq[stem].read_bytes())
    peer().run(inputs, tmp_path / "out")
    Image.new("RGB", (9, 9), "red").save(inputs["a"])
    outcome = peer().run(inputs, tmp_path / "out")
    assert starts() == [ALL, 1]
    assert pixels(outcome.restored["a"]).shape == (9, 9, 3)


def test_anew(peer: Peer, lq: Photos, tmp_path: Path, starts: Callable[[], list[int]]) -> None:
    out = tmp_path / "out"
    peer().run(lq, out)
    outcome = peer("--do", "skip", "--at", "0").run(lq, out, resume=False)
    assert starts() == [ALL, ALL]
    check_whole(outcome, out, lq)
    assert len(outcome.failed) == 1


def test_the_results_of_another_method_are_left_alone(
    peer: Peer, lq: Photos, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    peer().run(lq, out)
    with pytest.raises(MethodError, match=r"results of another method \(other: program\)"):
        peer("--seed", "8").run(lq, out)
    with pytest.raises(MethodError, match=r"other: seed"):
        peer(seed=8).run(lq, out)
    (out / LEDGER).unlink()
    with pytest.raises(MethodError, match=r"a\.png exists, but no ledger"):
        peer().run(lq, out)
    with pytest.raises(MethodError, match=r"a\.png exists, but no ledger"):
        peer().run(lq, out, resume=False)


@pytest.mark.parametrize("stem", ["../a", "/a", "", "a/../../b", ".work/a"])
def test_stems_stay_in_the_folder(peer: Peer, lq: Photos, tmp_path: Path, stem: str) -> None:
    with pytest.raises(MethodError, match="does not name a file"):
        peer().run({stem: lq["a"]}, tmp_path / "out")


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"command": ("x", "{input}", "{output}", "{nonsense}")}, "nonsense"),
        ({"command": ("x", "{output}")}, "{input}"),
        ({"command": ("x", "{input}")}, "{output}"),
        ({"command": ("x", "{input}", "{output}", "{upscale}")}, "factor is 1"),
        ({"outputs": ("output/x.png",)}, "{name}"),
        ({"outputs": ("../{name}.png",)}, "below the folder"),
        ({"command": ("x", "{input}", "{output}", "{a[b]}")}, "placeholder"),
        ({"command": ("x", "{input}", "{output}", "{")}, "placeholder"),
        ({"values": {"weights": "{nonsense}"}}, "nonsense"),
        ({"values": {"weights": "{repo.parent}"}}, "repo.parent"),
        ({"values": {"weights": "{python}"}}, "{python}"),
    ],
)
def test_a_wrong_spec_is_told(spec: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ProgramSpec(**{"command": ("x", "{input}", "{output}"), "factor": 1, **spec})  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_values(repo: Path) -> None:
    spec = ProgramSpec(
        command=("x", "{input}", "{output}", "{weights}"),
        values={"weights": ""},
        factor=1,
        name="X",
    )
    with pytest.raises(ConfigError, match=r"values\.weights is missing; X needs it"):
        build_method(ProgramConfig(program=spec, repo=repo))
    for text in ("{", "{0}", "{nonsense}"):
        with pytest.raises(ConfigError, match="placeholder"):
            ProgramConfig(program=spec, repo=repo, values={"weights": text})
    with pytest.raises(ConfigError, match="must be one of weights"):
        build_method(ProgramConfig(program=spec, repo=repo, values={"weight": "a"}))
    with pytest.raises(ConfigError, match="always enlarges by 1"):
        build_method(ProgramConfig(program=spec, repo=repo, values={"weights": "a"}, upscale=4.0))
    with pytest.raises(MethodError, match=r"no program is called 'diffbirr'; known: diffbir, "):
        build_method(ProgramConfig(program="diffbirr"))


def test_the_environment_is_the_programs_own(
    peer: Peer, repo: Path, lq: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    print_it = "import os; print(os.environ.get('PYTHONPATH'), os.environ['SEEN'])"
    spec = {"command": ("{python}", "-c", print_it, "{input}", "{output}")}
    outcome = peer(spec=spec, env={"SEEN": "yes"}).run({"a": lq["a"]}, tmp_path / "out")
    assert "its last words: None yes" in failures(outcome)


def test_a_virtual_environments_folder(lq: Photos, tmp_path: Path, repo: Path) -> None:
    """Its interpreter is used by its link, which is what makes it one."""
    env = tmp_path / "env"
    (env / "bin").mkdir(parents=True)
    (env / "bin" / "python").symlink_to(sys.executable)
    show = "import sys; print(sys.argv[0], sys.orig_argv[0])"
    spec = ProgramSpec(command=("{python}", "-c", show, "{input}", "{output}"), factor=1)
    outcome = build_method(ProgramConfig(program=spec, python=str(env), repo=repo)).run(
        lq, tmp_path / "out"
    )
    assert f"-c {env}/bin/python" in outcome.failed["a"]
