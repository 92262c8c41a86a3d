"""The shipped table of programs: every entry starts a stand-in for it, as its command says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbr.config import ConfigError
from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.base import MethodOutcome
from hbr.evaluation.methods.config import ProgramConfig
from hbr.evaluation.methods.programs import command_line, known_programs, needed_paths

PEERS = (
    *("diffbir", "seesr", "pasd", "resshift", "sinsr", "osediff", "invsr", "supir", "haodiff"),
    *("femasr", "real-esrgan", "swinir"),
)

# The options of each program at the commit that its entry names; `read_argparser.py` reads them.
ARGPARSERS = json.loads(Path(__file__).with_name("argparsers.json").read_text())

# Refuses what the program's argparser refuses; where its results go, the test puts in.
STAND_IN = """
import argparse, json, sys
from pathlib import Path
from PIL import Image
KINDS = {"int": int, "float": float, "str": str, "str2bool": str, "bool": bool}
parser = argparse.ArgumentParser(allow_abbrev=False)
for flags, kept in json.loads(ARGUMENTS):
    if "type" in kept:
        kept["type"] = KINDS[kept["type"]]
    if kept.get("action") == "BooleanOptionalAction":
        kept["action"] = argparse.BooleanOptionalAction
    parser.add_argument(*flags, **kept)
given = vars(parser.parse_args())
def value(*names):
    return next((given[n] for n in names if given.get(n) is not None), None)
source = Path(value("input", "in_path", "input_image", "image_path", "img_dir", "folder_lq"))
out = Path(value("output", "out_path", "output_dir", "save_dir") or ".")
factor = FACTOR or float(value("upscale", "outscale"))
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
def test_the_options_are_those_of_the_commit_that_the_entry_names(name: str) -> None:
    spec = known_programs()[name]
    assert spec.commit == ARGPARSERS[name]["commit"]
    assert [Path(word).name for word in spec.command if word.endswith(".py")] == [
        ARGPARSERS[name]["script"]
    ]


def run_stand_in(config: ProgramConfig, lq: dict[str, Path], folder: Path) -> MethodOutcome:
    """The command of the entry, started on a program that has the options of the real one."""
    name = str(config.program)
    spec = known_programs()[name]
    for path in needed_paths(spec, config, config.repo):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    code = STAND_IN.replace("ARGUMENTS", repr(json.dumps(ARGPARSERS[name]["arguments"])))
    code = code.replace("WRITE", spec.outputs[0].removeprefix("output/"))
    script = config.repo / ARGPARSERS[name]["script"]
    script.write_text(code.replace("FACTOR", str(spec.factor or 0)))
    return build_method(config).run({"a": lq["a"]}, folder / "out")


def config_of(name: str, folder: Path, **settings: object) -> ProgramConfig:
    """The entry as a method, with a value for each that must be given."""
    spec = known_programs()[name]
    folder.joinpath("repo").mkdir()
    needed = {k for k, value in spec.values.items() if not value and k not in spec.optional}
    given = {key: f"given/{key}" for key in needed} | settings.pop("values", {})  # type: ignore[operator]
    return ProgramConfig(
        program=name,
        python=sys.executable,
        repo=folder / "repo",
        values=given,
        scale=2.0,
        attempts=1,
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("name", PEERS)
def test_entries_run(name: str, lq: dict[str, Path], tmp_path: Path) -> None:
    outcome = run_stand_in(config_of(name, tmp_path), lq, tmp_path)
    assert not outcome.failed
    made = np.asarray(Image.open(outcome.restored["a"]))
    assert made.shape == (80, 112, 3)
    (environment,) = outcome.provenance["made_with"]
    assert environment["licence"] == known_programs()[name].licence


@pytest.mark.parametrize("name", PEERS)
def test_the_stand_in_refuses_an_option_that_the_program_does_not_have(
    name: str, lq: dict[str, Path], tmp_path: Path
) -> None:
    outcome = run_stand_in(config_of(name, tmp_path, args=("--sr_scale", "4")), lq, tmp_path)
    assert "unrecognized arguments: --sr_scale" in outcome.failed["a"]


def test_a_choice_that_the_program_does_not_have(lq: dict[str, Path], tmp_path: Path) -> None:
    config = config_of("pasd", tmp_path, values={"high_level_info": "captions"})
    outcome = run_stand_in(config, lq, tmp_path)
    assert "--high_level_info: invalid choice: 'captions'" in outcome.failed["a"]


def words_of(name: str, **values: str) -> list[str]:
    """The command of an entry, with some of its values."""
    config = ProgramConfig(program=name, values=values)
    folders = {part: Path(part) for part in ("repo", "input", "output")}
    return command_line(known_programs()[name], config, ["python"], folders)


def test_seesr_gets_an_empty_prompt_as_in_its_readme() -> None:
    """Its tagger's words and this one become the prompt, so that None would be a word of it."""
    assert "--prompt=" in words_of("seesr")
    assert "--prompt=a person" in words_of("seesr", prompt="a person")
    assert "None" not in " ".join(words_of("seesr"))


def test_supir_runs_on_one_gpu_unless_captions_are_asked_for() -> None:
    with_captions = [word for word in words_of("supir") if word != "--no_llava"]
    assert words_of("supir") == [*with_captions, "--no_llava"]
    assert words_of("supir", captions="") == with_captions


def test_pasd_says_what_its_prompt_is_made_of() -> None:
    words = words_of("pasd")
    assert words[words.index("--high_level_info") + 1] == "caption"
    assert known_programs()["pasd"].licence.startswith("Apache-2.0")


def test_resshift_is_that_of_the_paper_that_its_entry_names() -> None:
    words = words_of("resshift")
    assert "NeurIPS 2023" in known_programs()["resshift"].paper
    assert words[words.index("--version") + 1] == "v1"


def test_only_values_that_are_optional_may_be_empty() -> None:
    with pytest.raises(ConfigError, match=r"values\.base is missing; SeeSR needs it"):
        words_of("seesr", base="")


def test_another_commit_than_the_checked_one_is_reported(
    lq: dict[str, Path], tmp_path: Path
) -> None:
    config = config_of("femasr", tmp_path)
    git = ["git", "-C", str(config.repo), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "new"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    (config.repo / "inference_femasr.py").write_text("")
    said: list[str] = []
    build_method(config).run({"a": lq["a"]}, tmp_path / "out", report=said.append)
    checked = known_programs()["femasr"].commit
    assert said[0].startswith(f"the repository is at {head.stdout.strip()}; ")
    assert f"checked against {checked}" in said[0]


def test_a_missing_file_says_what_to_install(lq: dict[str, Path], tmp_path: Path) -> None:
    from hbr.evaluation.methods.base import MethodError

    method = build_method(ProgramConfig(program="seesr", python=sys.executable, repo=tmp_path))
    with pytest.raises(MethodError) as caught:
        method.run(lq, tmp_path / "out")
    assert "test_seesr.py is missing; clone the repository" in str(caught.value)
