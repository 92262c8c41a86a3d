"""One parser for flags, one for ids, one for names and text of annotation files."""

import math
from pathlib import Path

import pytest

from hbr.people.values import flag, identifier, name_parts, open_text


@pytest.mark.parametrize(
    "value", [1, 1.0, True, "1", "1.0", "true", "True", " YES ", "y", "on", "T"]
)
def test_flags_that_are_set(value: object) -> None:
    assert flag(value) is True


@pytest.mark.parametrize(
    "value",
    [
        *(0, 0.0, False, "0", "0.0", "false", "No", "off", "n", ""),
        *(None, math.nan, "nan", "NaN", "null", -1, -1.0, "-1", "Unspecified", "<NA>"),
    ],
)
def test_flags_that_are_not_set_or_not_stated(value: object) -> None:
    assert flag(value) is False


@pytest.mark.parametrize("value", [2, 0.5, math.inf, "maybe", "2", "0.5", [], [0], {"a": 1}, b"1"])
def test_flags_that_nobody_understands(value: object) -> None:
    assert flag(value) is None


@pytest.mark.parametrize("value", [7, 7.0, "7", "7.0", " 7 ", "7."])
def test_one_id_in_all_its_forms(value: object) -> None:
    assert identifier(value) == "7"


@pytest.mark.parametrize(
    ("value", "id"),
    [
        ("0007", "0007"),
        ("0e45", "0e45"),  # the hexadecimal ids of Open Images are no numbers
        ("273271,c9db000d5146c15", "273271,c9db000d5146c15"),
        (10**30, "1" + "0" * 30),
        ("22.05", "22.05"),
        (7.5, None),
        (math.nan, None),
        (math.inf, None),
        (True, None),
        (None, None),
        ("", None),
        ([7], None),
    ],
)
def test_ids_of_other_kinds(value: object, id: str | None) -> None:
    assert identifier(value) == id


@pytest.mark.parametrize(
    "name",
    [
        "a/b.jpg",
        "/a/b.jpg",
        "//a//b.jpg",
        "./a/./b.jpg",
        r"C:\a\b.jpg",
        r"c:/a\b.jpg",
        r"\\a\b.jpg",
    ],
)
def test_names_of_other_systems(name: str) -> None:
    assert name_parts(name) == ("a", "b.jpg")


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le-bom", "utf-16-be-bom"]
)
def test_text_in_the_encoding_of_its_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "x.txt"
    marks = {"utf-16-le-bom": "utf-16-le", "utf-16-be-bom": "utf-16-be"}
    words = "0 0.5 é"
    if encoding in marks:
        path.write_bytes(f"\ufeff{words}".encode(marks[encoding]))
    else:
        path.write_text(words, encoding=encoding)
    with open_text(path) as file:
        assert file.read() == words
    path.write_bytes(b"0 0.5 \xe9")  # of none of these: the rest is read
    with open_text(path) as file:
        assert file.read() == r"0 0.5 \xe9"
