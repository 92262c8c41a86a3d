"""The shipped table of programs: every entry starts a stand-in for it, as its command says."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbr.evaluation.methods import ProgramConfig, build_method
from hbr.evaluation.methods.programs import command_line, known_programs, needed_paths

PEERS = (
    *("diffbir", "seesr", "pasd", "resshift", "sinsr", "osediff", "invsr", "supir", "haodiff"),
    *("femasr", "real-esrgan", "swinir"),
)

# Takes the options of any of them; where its results go, the test puts in.
STAND_IN = """
import sys
from pathlib import Path
from PIL import Image
words = dict(zip(sys.argv[1:], sys.argv[2:]))
def value(*names):
    return next((words[n] for n in names if n in words), None)
source = Path(value("--input", "-i", "--image_path", "--img_dir", "--folder_lq"))
out = Path(value("--output", "-o", "--output_dir", "--save_dir") or ".")
factor = FACTOR or float(value("--upscale", "-s"))
for path in source.iterdir():
    image = Image.open(path)
    target = out / "WRITE".replace("{name}", path.stem)
    target.parent.mkdir(parents=True, exist_ok=True)
    image.resize([round(edge * factor) for edge in image.size]).save(target)
"""


def test_the_table_has_the_papers_peers() -> None:
    assert tuple(known_programs()) == PEERS


@pytest.mark.parametrize("name", PEERS)
def test_entries_are_complete(name: str) -> None:
    spec = known_programs()[name]
    assert spec.name
    assert spec.paper
    assert spec.url.startswith("https://github.com/")
    assert spec.licence != "not known"
    assert spec.install
    assert spec.notes


@pytest.mark.parametrize("name", PEERS)
def test_entries_run(name: str, lq: dict[str, Path], tmp_path: Path) -> None:
    spec = known_programs()[name]
    repo = tmp_path / "repo"
    repo.mkdir()
    values = {key: f"given/{key}" for key, value in spec.values.items() if not value}
    config = ProgramConfig(program=name, python=sys.executable, repo=repo, values=values, scale=2.0)
    for path in needed_paths(spec, config, repo):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folders = {part: tmp_path / part for part in ("repo", "input", "output")}
    words = command_line(spec, config, [sys.executable], folders)
    (script,) = (word for word in words if word.endswith(".py"))
    first = spec.outputs[0]
    write = first.removeprefix("output/")
    code = STAND_IN.replace("WRITE", write).replace("FACTOR", str(spec.factor or 0))
    (repo / Path(script).name).write_text(code)

    outcome = build_method(config).run({"a": lq["a"]}, tmp_path / "out")
    assert not outcome.failed
    made = np.asarray(Image.open(outcome.restored["a"]))
    assert made.shape == (80, 112, 3)
    (environment,) = outcome.provenance["made_with"]
    assert environment["licence"] == spec.licence


def test_a_missing_file_says_what_to_install(lq: dict[str, Path], tmp_path: Path) -> None:
    from hbr.evaluation.methods import MethodError

    method = build_method(ProgramConfig(program="seesr", python=sys.executable, repo=tmp_path))
    with pytest.raises(MethodError) as caught:
        method.run(lq, tmp_path / "out")
    assert "test_seesr.py is missing; clone the repository" in str(caught.value)
