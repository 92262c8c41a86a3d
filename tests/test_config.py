"""YAML onto dataclasses: one to one, and every mistake named."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from hbr.config import ConfigError, check, first_difference, from_dict, load_yaml, to_dict
from hbr.models.config import HFIEConfig, RestorerConfig, TextPromptConfig


@dataclass(frozen=True)
class Inner:
    size: int = 1

    def __post_init__(self) -> None:
        check(self.size > 0, "size", self.size, "above 0")


@dataclass(frozen=True)
class Outer:
    rate: float
    inner: Inner = dataclasses.field(default_factory=Inner)
    names: tuple[str, ...] = ()
    pair: tuple[int, int] = (1, 2)
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    mode: Literal["fast", "slow"] = "fast"
    folder: Path | None = None
    flag: bool = False


def test_yaml_onto_dataclasses_and_back(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(
        "rate: 1e-4\ninner: {size: 3}\nnames: [a, b]\npair: [3, 4]\nweights: {x: 1}\n"
        "mode: slow\nfolder: some/where\nflag: true\n"
    )
    config = load_yaml(Outer, file)
    wanted = Outer(1e-4, Inner(3), ("a", "b"), (3, 4), {"x": 1.0}, "slow", Path("some/where"), True)
    assert config == wanted
    assert from_dict(Outer, to_dict(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: 1\nrat: 2", "rat is not known; it may be one of rate, inner"),
        ("inner: {size: 3}", "rate is missing"),
        ("rate: fast", "rate is 'fast'; it must be a number"),
        ("rate: true", "rate is True; it must be a number"),
        ("rate: 1\ninner: {size: 0}", "inner.size is 0; it must be above 0"),
        ("rate: 1\ninner: {size: 1.5}", "inner.size is 1.5; it must be a whole number"),
        ("rate: 1\ninner: 3", "inner is 3; it must be a mapping"),
        ("rate: 1\nnames: a", "names is 'a'; it must be a list"),
        ("rate: 1\nnames: [1]", r"names\[0\] is 1; it must be text"),
        ("rate: 1\npair: [1]", r"pair is \[1\]; it must be a list of 2"),
        ("rate: 1\nmode: medium", "mode is 'medium'; it must be one of 'fast', 'slow'"),
        ("rate: 1\nflag: 1", "flag is 1; it must be true or false"),
        ("rate: 1\nfolder: 3", "folder is 3; it must be a path"),
        ("rate: [", "is not YAML"),
        ("- 1", "it must be a mapping"),
    ],
)
def test_every_mistake_is_named(tmp_path, text, message):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(Outer, file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        load_yaml(Outer, tmp_path / "nowhere.yaml")


def test_a_file_says_only_what_it_changes_of_its_base(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "first.yaml").write_text(
        "rate: 1\ninner: {size: 3}\nnames: [a, b]\nweights: {x: 1, y: 2}\nfolder: some/where\n"
    )
    (tmp_path / "second.yaml").write_text("base: first.yaml\nweights: {y: 3}\nflag: true\n")
    third = tmp_path / "sub/third.yaml"
    third.write_text("base: ../second.yaml\nnames: [c]\nfolder: null\n")
    wanted = Outer(1.0, Inner(3), ("c",), weights={"x": 1.0, "y": 3.0}, flag=True)
    assert load_yaml(Outer, third) == wanted


def test_a_mapping_of_another_kind_replaces_its_base(tmp_path):
    (tmp_path / "base.yaml").write_text("prompt: {kind: hfie, heads: 4, n_queries: 5}\n")
    over = tmp_path / "over.yaml"
    over.write_text("base: base.yaml\nprompt: {kind: hfie, heads: 2}\n")
    assert load_yaml(RestorerConfig, over).prompt == HFIEConfig(n_queries=5, heads=2)
    over.write_text("base: base.yaml\nprompt: {kind: text}\n")
    assert load_yaml(RestorerConfig, over).prompt == TextPromptConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: a.yaml", r"a\.yaml: base is 'a.yaml'; it must not lead back"),
        ("base: b.yaml", r"b\.yaml: base is 'a.yaml'; it must not lead back"),
        ("base: nowhere.yaml", r"nowhere\.yaml: No such file"),
        ("base: [a.yaml]", r"a\.yaml: base is \['a.yaml'\]; it must be a path"),
        ("base: list.yaml", r"list\.yaml: the configuration is \[1\]; it must be a mapping"),
        ("base: whole.yaml\ninner: {sise: 1}", "inner.sise is not known"),
        ("base: typo.yaml", "rat is not known"),
    ],
)
def test_a_base_that_cannot_be_is_named(tmp_path, text, message):
    for name, held in (
        ("b", "base: a.yaml"),
        ("list", "[1]"),
        ("whole", "rate: 1"),
        ("typo", "rat: 1"),
    ):
        (tmp_path / f"{name}.yaml").write_text(held)
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_yaml(Outer, file)
    assert "\n" not in str(caught.value)


def test_the_kind_decides_between_prompts():
    text = from_dict(RestorerConfig, {"prompt": {"kind": "text"}}).prompt
    hfie = from_dict(RestorerConfig, {"prompt": {"kind": "hfie", "n_queries": 5}}).prompt
    assert isinstance(text, TextPromptConfig)
    assert isinstance(hfie, HFIEConfig)
    with pytest.raises(ConfigError, match=r"prompt\.kind is 'tags'; it must be one of 'hfie'"):
        from_dict(RestorerConfig, {"prompt": {"kind": "tags"}})
    with pytest.raises(ConfigError, match=r"prompt\.kind is missing; it may be one of 'hfie', 'te"):
        from_dict(RestorerConfig, {"prompt": {"n_queries": 5}})
    with pytest.raises(ConfigError, match=r"prompt\.kind is \['hfie'\]; it must be one of"):
        from_dict(RestorerConfig, {"prompt": {"kind": ["hfie"]}})
    with pytest.raises(ConfigError, match=r"prompt\.n_querys is not known"):
        from_dict(RestorerConfig, {"prompt": {"kind": "hfie", "n_querys": 5}})


def test_the_default_model_is_stable_diffusion_at_full_size():
    config = RestorerConfig()
    assert (config.autoencoder.factor, config.multiple_of) == (8, 64)
    encoder = config.prompt.encoder  # a token for each cell of the last level, and their mean
    assert (encoder.image_size // (4 * 2 ** (len(encoder.depths) - 1))) ** 2 + 1 == 145
    assert from_dict(RestorerConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 2}, None),
        ({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 4}, ("a.b", 1, 3)),
        ({"a": {"b": 1}}, {"a": {"b": 1, "d": 5}}, ("a.d", None, 5)),
        ({"a": [1, 2]}, {"a": [1, 3]}, ("a", [1, 2], [1, 3])),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 3}]}, ("a[1].b", 2, 3)),
        ({"a": [{"b": 1}]}, {"a": []}, ("a", [{"b": 1}], [])),
        ({"a": {"kind": "x"}}, {"a": {"kind": "y"}}, ("a", {"kind": "x"}, {"kind": "y"})),
        ({"a": {"free": 1}, "c": 2}, {"a": {"free": 2}, "c": 3}, ("c", 2, 3)),
    ],
)
def test_the_first_difference_is_named(old, new, found):
    assert first_difference(old, new, free={"a.free"}) == found
