"""Configuration and loading of the crop tagger, and categories of tags (Fig. 7 of OSDHuman).

The networks are in `hbr.models.crop_taggers`; they are loaded by name, like a user's own tagger.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import numpy as np

from hbr.config import ConfigError, check, check_least


class CropTagger(Protocol):
    """Tags crops by their contents."""

    def __call__(self, crops: Sequence[np.ndarray]) -> list[list[str]]:
        """Return the tags of each crop, [h, w, 3] uint8 RGB; there is at least one crop."""


@dataclass(frozen=True, kw_only=True)
class RamTaggerConfig:
    """RAM or RAM++ (Zhang et al. 2023; Huang et al. 2023), from their published checkpoints.

    Attributes:
        weights: the `.pth` file; None uses RAM's from `hbr fetch ram-swin-l`.
        tags, thresholds: files with a name and a threshold in [0, 1] per tag, one per line; None
            uses the published lists next to the weights, or those from `hbr fetch ram-tags`.
        device: cpu, cuda, cuda:1, mps.
        batch: number of crops per batch.
    """

    kind: Literal["ram"] = "ram"
    weights: Path | None = None
    tags: Path | None = None
    thresholds: Path | None = None
    device: str = "cpu"
    batch: int = 1

    def __post_init__(self) -> None:
        check_least(self, 1, "batch")


@dataclass(frozen=True, kw_only=True)
class ClipTaggerConfig:
    """A CLIP model of transformers; picks the tags most similar to the crop (zero-shot).

    Attributes:
        tags: file of candidate tags, one per line.
        weights: folder of the model; None uses that of `hbr fetch clip-vit-large-patch14`.
        prompt: text for a tag, whose name replaces `{tag}`.
        threshold: minimum cosine similarity of crop and text, -1 to 1.
        top: maximum number of tags per crop.
        device: cpu, cuda, cuda:1, mps.
        batch: number of crops per batch.
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
        check_least(self, 1, "top", "batch")


_MODELS = {"ram": "hbr.models.crop_taggers:load_ram", "clip": "hbr.models.crop_taggers:load_clip"}


def load_tagger(tagger: str | RamTaggerConfig | ClipTaggerConfig) -> CropTagger:
    """Load a tagger.

    Raises:
        ConfigError: the function cannot be imported.
        WeightsError: weights or lists are missing, damaged, or do not match each other.
    """
    if isinstance(tagger, str):
        return cast("Callable[[], CropTagger]", _function(tagger))()
    settings = {name: value for name, value in vars(tagger).items() if name != "kind"}
    return cast("Callable[..., CropTagger]", _function(_MODELS[tagger.kind]))(**settings)


def _function(place: str) -> object:
    """Import the function at `package.module:function`."""
    module, name = place.split(":")
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"tagger {place!r} cannot be loaded: {error}") from None
    return found


def read_categories(file: Path) -> dict[str, str]:
    """Read a table of tag → category: a tag, a tab and its category per line.

    Raises:
        ConfigError: the file cannot be read, or a line has no tab or repeats a tag.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
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
    """Return each category's share of all tags, largest first; `other` is for unlisted tags."""
    counts = Counter[str]()
    for tag, n in tags.items():
        counts[categories.get(tag, "other")] += n
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {category: n / max(counts.total(), 1) for category, n in ordered}
