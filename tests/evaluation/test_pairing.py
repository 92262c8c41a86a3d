"""Pairs by stem: what belongs together, and what is said of the rest."""

from pathlib import Path

import pytest

from hbr.config import ConfigError
from hbr.evaluation.pairing import PairingError, StemRules, find_pictures, pair


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("rules", "name", "stem"),
    [
        ((), "a_out.png", "a_out"),
        (("_out",), "a_out.png", "a"),
        (("_out",), "a_out_out.png", "a_out"),
        (("_out",), "_out.png", "_out"),
        (("_out", "_x4"), "a_x4_out.png", "a"),
        (("_x4", "_out"), "a_x4_out.png", "a_x4"),
        (("re:_x[0-9]+",), "a_x2_x16.png", "a_x2"),
        (("re:_x[0-9]+",), "a_x2b.png", "a_x2b"),
        (("_.",), "a_b.png", "a_b"),
        (("_out",), "b/a_out.png", "b/a"),
        ((), "v1.2.png", "v1.2"),
    ],
)
def test_rules_take_endings_off(rules: tuple[str, ...], name: str, stem: str) -> None:
    assert StemRules(rules).stem(name) == stem


def test_letters_written_in_two_ways_are_the_same() -> None:
    assert StemRules().stem("e\u0301/e\u0301.png") == StemRules().stem("\u00e9/\u00e9.png")


@pytest.mark.parametrize("rule", ["", "re:", "re:(", "re:[a"])
def test_a_rule_that_is_none(rule: str) -> None:
    with pytest.raises(ConfigError, match="strip is"):
        StemRules((rule,))


def test_order_does_not_pair(tmp_path: Path) -> None:
    # sorted, the first of one folder stands beside the second of the other
    restored = find_pictures(touch(tmp_path / "r", "b.png", "c.png"))
    reference = find_pictures(touch(tmp_path / "g", "a.jpg", "b.jpg", "c.jpg"))
    found = pair(restored, reference, missing="skip")
    assert [(p.restored.name, p.reference and p.reference.name) for p in found.pairs] == [
        ("b.png", "b.jpg"),
        ("c.png", "c.jpg"),
    ]
    assert [path.name for path in found.missing] == ["a.jpg"]


def test_missing_and_extra_are_errors_unless_told_otherwise(tmp_path: Path) -> None:
    restored = find_pictures(touch(tmp_path / "r", "a.png", "x.png"))
    reference = find_pictures(touch(tmp_path / "g", "a.png", "b.png"))
    with pytest.raises(PairingError, match=r"1 reference without .*b\.png.*--missing skip"):
        pair(restored, reference, extra="skip")
    with pytest.raises(PairingError, match=r"1 restored picture without .*x\.png.*--extra skip"):
        pair(restored, reference, missing="skip")
    found = pair(restored, reference, missing="skip", extra="skip")
    assert [p.stem for p in found.pairs] == ["a"]
    assert [path.name for path in found.extra] == ["x.png"]


def test_nothing_in_common_points_at_the_rules(tmp_path: Path) -> None:
    restored = find_pictures(touch(tmp_path / "r", "a_out.png"))
    reference = find_pictures(touch(tmp_path / "g", "a.png"))
    with pytest.raises(PairingError, match=r"a_out\.png.*a\.png.*--strip"):
        pair(restored, reference, missing="skip", extra="skip")


def test_two_of_one_stem(tmp_path: Path) -> None:
    with pytest.raises(PairingError, match=r"a\.jpg and a\.png have the same stem 'a'"):
        find_pictures(touch(tmp_path, "a.jpg", "a.png"))
    with pytest.raises(PairingError, match="same stem 'b'"):
        find_pictures(touch(tmp_path / "s", "b.png", "b_out.png"), StemRules(("_out",)))


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(PairingError, match="holds no pictures"):
        find_pictures(touch(tmp_path, "notes.txt", ".hidden.png", "sub/a.png"))
    assert list(find_pictures(tmp_path, recursive=True)) == ["sub/a"]
    with pytest.raises(PairingError, match="does not exist"):
        find_pictures(tmp_path / "none")
    with pytest.raises(PairingError, match="is not a folder"):
        find_pictures(tmp_path / "notes.txt")


def test_pictures_that_cannot_be_read_count(tmp_path: Path) -> None:
    assert list(find_pictures(touch(tmp_path, "a.heic", "b.png"))) == ["a", "b"]
