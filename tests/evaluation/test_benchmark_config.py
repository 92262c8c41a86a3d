"""Benchmarks as data: those that are shipped, parameters, and what is said of wrong ones."""

from pathlib import Path

import pytest

from hbr.config import ConfigError
from hbr.evaluation.benchmark_config import load_benchmark, parameters, read_raw, shipped
from hbr.evaluation.methods.config import BaselineConfig, HbrConfig, ResultsFolderConfig
from hbr.evaluation.papers import paper_table

# To be raised by hand with every benchmark that is added, so that none goes missing unseen.
SHIPPED = (
    "diffbody-ablations",
    "diffbody-table1",
    "haodiff-table1",
    "haodiff-table2",
    "lcudiff-table1",
    "lcudiff-table2",
    "nano",
    "osdhuman-table1",
    "osdhuman-table2",
    "osdhuman-table3",
    "osdhuman-table4",
)


def test_what_is_shipped() -> None:
    assert shipped() == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_benchmark_loads_and_fits_its_paper(name: str) -> None:
    _, values = read_raw(name)
    given = {parameter: parameter for parameter in parameters(values)}
    if "scale" in given:
        given["scale"] = "4"
    loaded = load_benchmark(name, given)
    assert not loaded.left_out
    assert not loaded.not_run
    config = loaded.config
    if not config.paper:
        return
    table = paper_table(config.paper)
    # every row and column of the paper can be filled
    data_sets = {data_set for _, data_set, _ in table.values}
    assert set(config.data_sets) == data_sets
    if table.rows == "methods":
        assert list(config.methods) == list(table.methods)
    assert config.table.rows == table.rows
    for data_set, settings in config.data_sets.items():
        printed = {metric for _, d, metric in table.values if d == data_set}
        assert {*settings.ids} >= printed  # in the editions that papers report


def test_what_is_not_given_is_left_out() -> None:
    given = {"persona-test": "somewhere", "osdhuman": "file", "osediff-persona": "folder"}
    loaded = load_benchmark("osdhuman-table2", given)
    assert list(loaded.config.data_sets) == ["PERSONA-Test"]
    assert loaded.left_out == {"PERSONA-Val": ("persona-val-hq", "persona-val-lq")}
    assert list(loaded.config.methods) == ["OSEDiff*", "OSDHuman"]
    assert loaded.not_run["SeeSR"] == ("seesr",)


def test_methods_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "own.yaml").write_text("method: {kind: baseline, baseline: nlm, strength: 3}")
    own = {"nano": str(tmp_path / "results"), "mine": str(tmp_path / "own.yaml")}
    config = load_benchmark("nano", {"photos": "p"}, own).config
    assert list(config.methods) == ["input", "median", "non-local means", "nano", "mine"]
    assert config.methods["nano"].kind == "folder"
    assert config.methods["mine"].strength == 3  # type: ignore[union-attr]


def test_a_path_in_a_benchmark_may_be_results_a_model_or_a_method_file(tmp_path: Path) -> None:
    """`OSEDiff*` and its like: whatever there is of a retrained model can stand in the table."""
    (tmp_path / "results").mkdir()
    (tmp_path / "retrained.yaml").write_text("method: {kind: baseline, baseline: nlm, strength: 3}")
    given = {
        "persona-test": "somewhere",
        "osediff-persona": "runs/osediff-persona/model.safetensors",
        "resshift-persona": str(tmp_path / "results"),
        "sinsr-persona": str(tmp_path / "retrained.yaml"),
        "scale": "4",
    }
    methods = load_benchmark("osdhuman-table2", given).config.methods
    assert methods == {
        "ResShift*": ResultsFolderConfig(folder=tmp_path / "results", scale=4),
        "SinSR*": BaselineConfig("nlm", scale=4, strength=3),
        "OSEDiff*": HbrConfig(model="runs/osediff-persona/model.safetensors", scale=4),
    }
    model = tmp_path / "model.safetensors"
    model.touch()
    own = {"mine": str(model)}
    assert load_benchmark("nano", {"photos": "p"}, own).config.methods["mine"] == HbrConfig(
        model=str(model)
    )


YAML = """
title: a test
data_sets:
  set: {hq: "${hq}", lq: {kind: recipe, recipe: light}, metrics: [psnr]}
methods:
  input: {kind: baseline, baseline: input}
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("[psnr]", "[pnsr]"), "did you mean psnr"),
        (("[psnr]", "[psnr, psnr-y]"), "each metric once"),
        (("[psnr]", "[]"), "metrics is ()"),
        (("[psnr]", "[person-colour]"), "a COCO file, for person-colour"),
        (('hq: "${hq}", ', ""), "hq is None; it must be a folder, to make LQ of"),
        (("kind: recipe, recipe: light", 'kind: folder, folder: "${hq}"'), None),
        (("baseline: input}", "baseline: output}"), "baseline"),
        (("title: a test", "title: a test\npaper: none.such"), "known: osdhuman.table1_datasets"),
        (("title: a test", "title: a test\nagainst: inputs"), "against is 'inputs'; it"),
        (("title: a test", "title: a test\ntolerance: {pnsr: 1}"), "tolerance: no metric is"),
        (("title: a test", "title: a test\ntolerance: {psnr: -1}"), "tolerance.psnr is -1.0"),
        (("title: a test", "title: a test\ntable: {decimals: {psrn: 2}}"), "did you mean psnr"),
        (("title: a test", "title: a test\ntable: {decimals: {psnr: 20}}"), "psnr is 20; it must"),
        (("kind: recipe, ", ""), "lq.kind is missing; it may be one of 'folder', 'recipe'"),
        (("title: a test", "titel: a test"), "titel is not known"),
        (("  input: {kind: baseline, baseline: input}", ""), "methods"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], said: str | None) -> None:
    file = tmp_path / "b.yaml"
    assert change[0] in YAML
    file.write_text(YAML.replace(*change))
    if said is None:
        assert load_benchmark(str(file), {"hq": "x"})
        return
    with pytest.raises(ConfigError) as error:
        load_benchmark(str(file), {"hq": "x"} if "${hq}" in file.read_text() else {})
    assert said in str(error.value)


def test_names_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no benchmark is called 'nanoo'.*osdhuman-table4"):
        load_benchmark("nanoo", {})
    with pytest.raises(ConfigError, match=r"no parameter 'photo'; it has photos"):
        load_benchmark("nano", {"photo": "x"})
    with pytest.raises(ConfigError, match="has no data sets to run on; give --data photos=PATH"):
        load_benchmark("nano", {})
    (tmp_path / "m.yaml").write_text("kind: baseline\nbaseline: nlm\n")
    with pytest.raises(ConfigError, match=r"m\.yaml: kind is not known; it may be one of method"):
        load_benchmark("nano", {"photos": "x"}, {"m": str(tmp_path / "m.yaml")})
    with pytest.raises(ConfigError, match=r"folder of results nor a YAML file .* nor a model file"):
        load_benchmark("nano", {"photos": "x"}, {"m": str(tmp_path / "none")})


def test_metrics_whose_weights_are_not_here_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    found = load_benchmark("nano", {"photos": "p"})
    assert found.without_weights == ("brisque", "dists", "lpips-alex", "lpips-vgg", "niqe")
    before = found.config.data_sets["photos"].metrics
    (tmp_path / "niqe.npz").touch()
    found = load_benchmark("nano", {"photos": "p"})
    assert found.without_weights == ("brisque", "dists", "lpips-alex", "lpips-vgg")
    assert found.config.data_sets["photos"].metrics == (*before, "niqe")
