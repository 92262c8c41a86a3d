"""`hbr recipes`, and recipes by name with changes, through the real command."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from hbr.apps.cli.main import main
from hbr.config import ConfigError, load_yaml, to_dict
from hbr.curation.config import CurationConfig
from hbr.models.files import read_header
from hbr.recipes import find_recipe, recipe_names
from hbr.training.config import TrainConfig
from hbr.training.recipe import load_recipe
from hbr.weights import find_model

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hbr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Run the command in this process and in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hbr", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_list_has_every_recipe_with_its_first_line(hbr: Command) -> None:
    code, out, _ = hbr("recipes", "list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0
    assert [row[0] for row in rows] == ["name", *recipe_names()]
    assert dict(rows)["osdhuman/persona"].startswith("OSDHuman (ICML 2025")


def test_show_prints_the_file(hbr: Command) -> None:
    file = find_recipe("osdhuman/prompt-null")
    assert file is not None
    assert hbr("recipes", "show", "osdhuman/prompt-null")[1] == file.read_text()
    assert hbr("recipes", "show", "persona")[1].startswith("# PERSONA (arXiv 2502.01411)")


@pytest.mark.parametrize("name", recipe_names())
def test_a_copy_says_the_same_as_the_recipe(hbr: Command, name: str) -> None:
    code, out, _ = hbr("recipes", "copy", name)
    file = find_recipe(name)
    assert file is not None
    assert (code, out) == (0, f"{file.stem}.yaml\n")
    kind = CurationConfig if name.startswith("curation/") else TrainConfig
    assert load_yaml(kind, out.strip()) == load_yaml(kind, file)


def test_a_copy_replaces_nothing_unless_it_may(hbr: Command) -> None:
    Path("mine.yaml").write_text("mine")
    code, _, err = hbr("recipes", "copy", "nano/prior", "-o", "mine.yaml")
    assert (code, Path("mine.yaml").read_text()) == (2, "mine")
    assert "mine.yaml exists" in err
    assert hbr("recipes", "copy", "nano/prior", "-o", "mine.yaml", "--overwrite")[0] == 0
    assert "mine" not in Path("mine.yaml").read_text().split()


@pytest.mark.parametrize("command", [("recipes", "show"), ("train",), ("curate", "run")])
def test_an_unknown_recipe_is_one_line(hbr: Command, command: tuple[str, ...]) -> None:
    code, out, err = hbr(*command, "nobody/nothing")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "nobody/nothing" in err
    assert "hbr recipes list" in err


def test_a_plan_by_name_with_a_change(hbr: Command) -> None:
    plan = ("train", "nano/autoencoder", "--plan", "--json", "--device", "cpu")
    few = ("--set", "phases.0.steps=3100", "--set", "optim.lr=1e-4")
    code, out, err = hbr(*plan, *few)
    assert code == 0, err
    assert [phase["steps"] for phase in json.loads(out)["phases"]] == [3100]


def test_a_plan_shows_what_degradations_were_inherited(hbr: Command) -> None:
    plan = ("train", "nano/faithful-5", "--plan", "--device", "cpu")
    changes = ("none=0", "light=0", "small=0.5", "real-esrgan=0.5", "photo=0", "real-esrgan-2-4=0")
    code, out, err = hbr(*plan, *(x for c in changes for x in ("--set", f"data.degradations.{c}")))
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "Degradations: real-esrgan 50.0%, small 50.0%."
    code, out, _ = hbr(*plan, "--json")
    assert json.loads(out)["degradations"]["none"] == pytest.approx(0.05 / 1.15)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.rate=1e-4", "optim.rate is not known; it may be one of lr"),
        ("optim.lr=fast", "optim.lr is 'fast'; it must be a number"),
        ("optim.lr", "--set is 'optim.lr'; it must be KEY=VALUE"),
        ("phases.7.steps=1", "'7'; it must be a place in the list, 0 to 1"),
        ("start.kind=x", "is 'identity'; it must be a mapping"),
        ("out=[", "is not YAML"),
    ],
)
def test_a_change_that_does_not_fit_is_one_line(hbr: Command, setting: str, message: str) -> None:
    code, out, err = hbr("train", "nano/restorer", "--plan", "--set", setting)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err


def test_changes_are_typed_and_reach_into_lists_and_new_mappings() -> None:
    file = find_recipe("persona", "curation")
    assert file is not None
    with pytest.raises(ConfigError, match=r"sources\[1\]\.name is 365; it must be text"):
        load_yaml(CurationConfig, file, ("size.longer=384", "sources.1.name=365"))
    other = find_recipe("people-photos", "curation")
    assert other is not None
    changes = ("size.longer=384", "boxes.detector.name=rtdetr", "splits.parts.val=0.1")
    values = to_dict(load_yaml(CurationConfig, other, changes))
    assert values["size"]["longer"] == 384
    assert values["boxes"]["detector"]["name"] == "rtdetr"
    assert values["splits"]["parts"] == {"train": 0.9, "val": 0.1}
    recipe = find_recipe("nano/restorer")
    assert recipe is not None
    changed = load_recipe(recipe, ("phases.0.steps=100", "phases.1.steps=2100"))
    assert [phase.steps for phase in changed.phases] == [100, 2100]


def test_without_a_model_the_training_has_that_of_its_start(tmp_path: Path) -> None:
    file = find_recipe("nano/restorer")
    assert file is not None
    values = yaml.safe_load(file.read_text())
    del values["model"]
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(values | {"start": "random"}))
    with pytest.raises(ConfigError, match=r"tune.yaml: model is missing"):
        load_recipe(tmp_path / "tune.yaml")
    nano = read_header(find_model("nano")).config
    for init in ("init=nano", "init={base: nano}"):
        assert load_recipe(tmp_path / "tune.yaml", [init]).model == nano
    with pytest.raises(ConfigError, match="model is missing"):
        load_recipe(tmp_path / "tune.yaml", ["init={base: sd-2.1-base}"])
