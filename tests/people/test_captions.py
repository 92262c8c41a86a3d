"""Captions: the order of the tags, their length, and the file that they are kept in."""

from pathlib import Path

import pytest

from hbr.config import ConfigError
from hbr.people.captions import LONGEST, ordered, read_captions


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" , ;\n", ""),
        ("a woman", "a woman"),
        ("boots; blue jeans, a tall man, red scarf", "a tall man, red scarf, blue jeans, boots"),
        ("umbrella, gloves, coat, girl", "girl, coat, gloves, umbrella"),
        # what is named is believed, and what is unknown stays, at the end
        ("shoes: red things, identity: a nurse", "a nurse, red things"),
        ("sunny day, a man, a beach", "a man, sunny day, a beach"),
        ("Coat, coat,  COAT", "Coat"),
        ("une femme, chapeau", "une femme, chapeau"),
        ("日本語, a man", "a man, 日本語"),
    ],
)
def test_tags_come_in_the_order_of_the_paper(text: str, expected: str) -> None:
    assert ordered(text) == expected
    assert ordered(expected) == expected


def test_five_hundred_words_are_cut_between_tags() -> None:
    text = ", ".join(f"tag number {i}" for i in range(500))
    cut = ordered(text)
    assert LONGEST - 20 < len(cut) <= LONGEST
    assert text.startswith(cut)
    assert text[len(cut)] == ","
    assert len(ordered("x" * 1000)) == LONGEST


def test_a_file_of_captions(tmp_path: Path) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text('{"photo": "a.jpg", "text": "shoes, a man"}\n{"photo": "b.jpg", "text": ""}\n')
    assert read_captions(path) == {"a.jpg": "a man, shoes", "b.jpg": ""}


@pytest.mark.parametrize("line", ["{", "[1]", '{"photo": "a"}', "3"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "captions.jsonl"
    path.write_text(f'{{"photo": "a.jpg", "text": "x"}}\n{line}\n')
    with pytest.raises(ConfigError, match="line 2: it must be"):
        read_captions(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as captions"):
        read_captions(tmp_path / "captions.jsonl")
