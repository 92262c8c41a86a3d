"""A program that imitates what peers do, well and badly, and photos to give to it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.config import ProgramConfig, ProgramSpec
from hbr.evaluation.methods.method import Method

PHOTO = Path(__file__).parents[2] / "data" / "purple.jpg"

# What every peer does, in little: read a folder, write a picture for each, now and then misbehave.
PEER = """
import argparse, os, subprocess, sys, time
from pathlib import Path
from PIL import Image

a = argparse.ArgumentParser()
a.add_argument("--input", type=Path)
a.add_argument("--output", type=Path)
a.add_argument("--upscale", type=float, default=1)
a.add_argument("--seed", default="")
a.add_argument("--write", default="NAME.png")
a.add_argument("--do", default="")
a.add_argument("--at", type=int, default=1)
a.add_argument("--once", default="")
a = a.parse_args()
print("argv", sys.argv[1:], flush=True)
if a.once:  # misbehave in the first start only
    first = not Path(a.once).exists()
    Path(a.once).touch()
    a.do = a.do if first else ""
Path("starts").open("a").write(f"{len(list(a.input.iterdir()))}\\n")
if a.do == "nothing":
    sys.exit(0)
for number, path in enumerate(sorted(a.input.iterdir())):
    bad = number == a.at
    target = a.output / a.write.replace("NAME", path.stem).replace("TIME", time.strftime("%H%M%S"))
    target.parent.mkdir(parents=True, exist_ok=True)
    image = Image.open(path)
    assert (image.mode, image.info) == ("RGB", {}), (image.mode, image.info)
    size = [round(edge * a.upscale) for edge in image.size]
    if bad and a.do == "crash":
        raise RuntimeError("CUDA out of memory")
    if bad and a.do == "die":
        os.kill(os.getpid(), 9)
    if bad and a.do in ("hang", "hang with a child"):
        if a.do == "hang with a child":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path("child").write_text(str(child.pid))
        print("thinking", flush=True)
        time.sleep(600)
    if a.do == "slow":
        time.sleep(0.3)
    if bad and a.do == "skip":
        continue
    if bad and a.do == "size":
        size = [edge - 3 for edge in size]
    if a.do == "multiples of 8":
        size = [edge // 8 * 8 for edge in size]
    if bad and a.do == "text":
        target.write_text("sorry")
        continue
    image.resize(size).save(target)
    if bad and a.do == "empty":
        target.write_bytes(b"")
    if bad and a.do == "truncated":
        target.write_bytes(target.read_bytes()[:-200])
if a.do == "fails at the end":
    sys.exit("ModuleNotFoundError: No module named 'pyiqa'")
"""


@pytest.fixture(scope="session")
def lq(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five photos under names that programs stumble over."""
    folder = tmp_path_factory.mktemp("lq")
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))
    found = {}
    for number, stem in enumerate(["a", "a_1", "b.c d", "sub/e", "[f]*"]):
        path = folder / f"{stem}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels[number : number + 40, :56]).save(path)
        found[stem] = path
    return found


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """The clone of a peer."""
    folder = tmp_path / "peer's clone"
    folder.mkdir()
    (folder / "peer.py").write_text(PEER)
    return folder


Peer = Callable[..., Method]


@pytest.fixture
def peer(repo: Path) -> Peer:
    """The program as a method: `spec` for what it is, `words` for its command, the rest to use."""

    def make(*words: str, spec: dict[str, Any] | None = None, **config: Any) -> Method:
        ends = ("--input", "{input}", "--output", "{output}")
        values: dict[str, Any] = {"factor": 1, **(spec or {})}
        command = ("{python}", "peer.py", *ends, *words)
        program = ProgramSpec(**{"command": command, **values})
        settings = {"start_seconds": 60.0, "image_seconds": 10.0, "attempts": 1, **config}
        return build_method(
            ProgramConfig(program=program, python=sys.executable, repo=repo, **settings)
        )

    return make


@pytest.fixture
def starts(repo: Path) -> Callable[[], list[int]]:
    """How many inputs each start of the program got."""

    def read() -> list[int]:
        log = repo / "starts"
        return [int(line) for line in log.read_text().split()] if log.exists() else []

    return read
