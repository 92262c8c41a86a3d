"""What tags the crops, as plain data, and the categories of tags (Fig. 7).

The networks are in `hbr.models.crop_taggers`; they are named here as a user's own tagger is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np

from hbr.config import ConfigError, check


class CropTagger(Protocol):
    """Tags crops with what is in them."""

    def __call__(self, crops: Sequence[np.ndarray]) -> list[list[str]]:
        """Tags for each of [h, w, 3] uint8 RGB crops."""


@dataclass(frozen=True, kw_only=True)
class RamTaggerConfig:
    """RAM or RAM++ (Zhang et al. 2023; Huang et al. 2023), from their published checkpoints.

    Attributes:
        weights: the `.pth`; None is where `hbr fetch ram-swin-l` puts RAM's.
        tags, thresholds: a name and a number in [0, 1] for each tag, a line each; None is the
            published lists beside the weights, or where `hbr fetch ram-tags` puts them.
        device: cpu, cuda, cuda:1, mps.
        batch: crops at a time.
    """

    kind: Literal["ram"] = "ram"
    weights: Path | None = None
    tags: Path | None = None
    thresholds: Path | None = None
    device: str = "cpu"
    batch: int = 1

    def __post_init__(self) -> None:
        check(self.batch >= 1, "batch", self.batch, "1 or more")


@dataclass(frozen=True, kw_only=True)
class ClipTaggerConfig:
    """A CLIP of transformers: the tags whose texts are most similar to the crop (zero-shot).

    Attributes:
        tags: the possible tags, a line each.
        weights: the folder of the model; None is where `hbr fetch clip-vit-large-patch14` puts it.
        prompt: the text of a tag.
        threshold: least cosine similarity of crop and text, -1 to 1.
        top: at most so many tags.
        device: cpu, cuda, cuda:1, mps.
        batch: crops at a time.
    """

    tags: Path
    kind: Literal["clip"] = "clip"
    weights: Path | None = None
    prompt: str = "a photo of {tag}."
    threshold: float = 0.2
    top: int = 13
    device: str = "cpu"
    batch: int = 1

    def __post_init__(self) -> None:
        check("{tag}" in self.prompt, "prompt", self.prompt, "a text with {tag} in it")
        check(-1 <= self.threshold <= 1, "threshold", self.threshold, "-1 to 1")
        check(self.top >= 1, "top", self.top, "1 or more")
        check(self.batch >= 1, "batch", self.batch, "1 or more")


_MODELS = {"ram": "hbr.models.crop_taggers:load_ram", "clip": "hbr.models.crop_taggers:load_clip"}


def load_tagger(tagger: str | RamTaggerConfig | ClipTaggerConfig) -> CropTagger:
    """Load a tagger.

    Raises:
        ConfigError: there is no such function.
        WeightsError: weights or lists are missing, damaged, or do not match.
    """
    if isinstance(tagger, str):
        return cast("Callable[[], CropTagger]", _function(tagger))()
    return cast("Callable[[object], CropTagger]", _function(_MODELS[tagger.kind]))(tagger)


def _function(place: str) -> object:
    """What `package.module:function` names."""
    module, name = place.split(":")
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"tagger {place!r} cannot be loaded: {error}") from None
    return found


def read_categories(file: Path) -> dict[str, str]:
    """Tag → category, from a table of tags, tabs and categories.

    Raises:
        ConfigError: the file is missing, or a line has no tab, or names a tag again.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"tag_categories: {file}: {reason}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        tag, _, category = (part.strip() for part in line.partition("\t"))
        if not line.strip():
            continue
        ok = bool(tag and category) and tag not in found
        expected = "a tag that is not listed yet, a tab and its category"
        check(ok, f"tag_categories: {file}, line {number}", line, expected)
        found[tag] = category
    return found


def shares(tags: Mapping[str, int], categories: Mapping[str, str]) -> dict[str, float]:
    """Category → its share of all tags, the largest first; tags without one are `other`."""
    counts: dict[str, int] = {}
    for tag, n in tags.items():
        category = categories.get(tag, "other")
        counts[category] = counts.get(category, 0) + n
    total = max(sum(counts.values()), 1)
    ordered = sorted(counts, key=lambda category: (-counts[category], category))
    return {category: counts[category] / total for category in ordered}
