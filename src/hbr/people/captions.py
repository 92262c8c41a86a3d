"""Captions of people as data: tags in a fixed order, of limited length, kept in files.

DiffBody (2024) describes a person by tags in a fixed order, which GPT-4V wrote for its training;
here the user writes them, a file holds them, or an open model writes them (`tags_of_answer`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from hbr.config import ConfigError
from hbr.errors import one_line

KINDS = ("identity", "face", "upper", "hands", "lower", "shoes", "carried")
"""The kinds of tags in the paper's order: who it is; what is worn on face and neck; clothes of the
upper body; hands; clothes of the lower body; shoes; what is carried."""

LONGEST = 300
"""Characters of a caption. CLIP sees 77 tokens, about this many characters of English."""

_LONGEST_TAG = 40  # characters; more is a sentence

_WORDS = {
    "identity": "man woman boy girl person child baby lady guy male female people",
    "face": "glasses sunglasses hat cap beard mask scarf necklace earrings tie hair helmet "
    "headband headphones mustache veil collar",
    "upper": "shirt t-shirt jacket coat sweater hoodie blouse top dress vest suit blazer cardigan "
    "pullover uniform jersey",
    "hands": "hand hands glove gloves ring watch bracelet fingers wristband",
    "lower": "trousers pants jeans skirt shorts leggings tights belt",
    "shoes": "shoes shoe boots sneakers sandals heels slippers socks barefoot",
    "carried": "bag handbag backpack umbrella phone camera bottle cup book suitcase racket ball "
    "guitar stick dog bicycle",
}
_KIND_OF = {word: kind for kind, words in _WORDS.items() for word in words.split()}


def ordered(text: str) -> str:
    """The tags of a text in the paper's order, without repetitions, cut to `LONGEST` characters.

    Tags are separated by commas, semicolons or lines. A tag `KIND: TAG` says its kind; otherwise
    its last known word does. Tags of unknown kind keep their order and come last. Tags are dropped
    only for the length, whole ones from the end.

    >>> ordered("white sneakers, a backpack, red jacket, a woman, shoes: sandals")
    'a woman, red jacket, white sneakers, sandals, a backpack'
    """
    by_kind: dict[str, list[str]] = {kind: [] for kind in (*KINDS, "")}
    seen = set()
    for part in re.split(r"[,;\n]", text):
        kind, colon, rest = part.partition(":")
        named = colon and kind.strip().lower() in KINDS
        tag = " ".join((rest if named else part).split())
        if tag and tag.lower() not in seen:
            seen.add(tag.lower())
            by_kind[kind.strip().lower() if named else _kind(tag)].append(tag)
    tags = [tag for of_kind in by_kind.values() for tag in of_kind]
    kept = ""
    for tag in tags:
        longer = f"{kept}, {tag}" if kept else tag
        if len(longer) > LONGEST:
            break
        kept = longer
    # a first tag that is too long is cut itself
    return kept or "".join(tags[:1])[:LONGEST]


def _kind(tag: str) -> str:
    words = re.findall(r"[\w-]+", tag.lower())
    return next((_KIND_OF[word] for word in reversed(words) if word in _KIND_OF), "")


def tags_of_answer(answer: str) -> tuple[str, str]:
    """The tags in what a language model answered, ordered, and why there are none.

    Models also answer with a sentence, nothing, another language or one word over and over; none of
    that becomes a caption.

    Returns:
        (tags, "") or ("", the reason in a few words).

    >>> tags_of_answer("A woman, blue jeans, red coat.")
    ('A woman, red coat, blue jeans', '')
    >>> tags_of_answer("The photo shows somebody who walks down a street in autumn")
    ('', 'a sentence, not tags')
    """
    words = " ".join(answer.split()).strip(" .,;")
    letters = [letter for letter in words if letter.isalpha()]
    if not letters:
        return "", "an empty answer"
    if sum(letter.isascii() for letter in letters) < 0.9 * len(letters):
        return "", "not in English"
    tags = [tag.strip(" .") for tag in re.split(r"[,;]", words)]
    if any(len(tag) > _LONGEST_TAG for tag in tags):
        return "", "a sentence, not tags"
    text = ordered(", ".join(tags))
    if not any(_kind(tag) for tag in text.split(", ")):
        return "", "nothing about a person"
    return text, ""


def read_captions(path: Path) -> dict[str, str]:
    """Captions by the name of their photo, ordered, from JSON lines.

    Raises:
        ConfigError: the file is missing, or a line is not {"photo": NAME, "text": TEXT}.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as captions: {one_line(error)}") from None
    found = {}
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            found[str(row["photo"])] = ordered(str(row["text"]))
        except (ValueError, KeyError, TypeError):
            raise ConfigError(
                f'{path}, line {number}: it must be {{"photo": NAME, "text": TEXT}}'
            ) from None
    return found
