"""Taggers of finished crops, for curation: RAM and RAM++, and CLIP over a list of tags.

Shapes: b batch, k tags, d features, h w pixels. Crops are [h, w, 3] uint8 RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hbr.devices import exact_inference
from hbr.errors import one_line
from hbr.models.importing.tagger import import_tagger
from hbr.models.tagger import Tagger
from hbr.weights import WeightsError, find_weights

TagCrops = Callable[[Sequence[np.ndarray]], list[list[str]]]

# CLIP's training values
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def load_ram(
    weights: Path | None, tags: Path | None, thresholds: Path | None, device: str, batch: int
) -> TagCrops:
    """Load RAM or RAM++; the arguments are those of `hbr.curation.tagging.RamTaggerConfig`.

    Raises:
        WeightsError: a file is missing, unsafe or damaged, or does not match the others.
    """
    config, tensors = import_tagger(weights or _fetched_ram(), tags=tags, thresholds=thresholds)
    tagger = Tagger(config)
    tagger.load_state_dict(tensors)
    tagger = tagger.to(device).eval()

    def tag(images: Tensor) -> list[list[str]]:
        return [list(names) for names in tagger.tags(images)]

    return _in_batches(tag, device, batch)


def load_clip(
    tags: Path,
    weights: Path | None,
    prompt: str,
    threshold: float,
    top: int,
    device: str,
    batch: int,
) -> TagCrops:
    """Load a CLIP of transformers and embed the text of every tag.

    The arguments are those of `hbr.curation.tagging.ClipTaggerConfig`.

    Raises:
        WeightsError: the folder holds no CLIP, or the list is missing or empty.
    """
    from transformers import CLIPModel, CLIPTokenizer

    names = _read_tags(tags)
    folder = weights or find_weights("clip-vit-large-patch14", "the tagger")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        model = CLIPModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    except Exception as error:  # a damaged folder can raise anything
        raise WeightsError(
            f"{folder} is not a CLIP of transformers: {one_line(error, 200)}"
        ) from None
    model = model.requires_grad_(False).eval().to(device)
    side = int(model.config.vision_config.image_size)
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (_MEAN, _STD))
    embedded = []
    for start in range(0, len(names), 64):
        texts = [prompt.replace("{tag}", name) for name in names[start : start + 64]]
        words = tokenizer(texts, return_tensors="pt", padding=True).to(device)
        with exact_inference():
            pooled = model.text_model(**words).pooler_output
            embedded.append(F.normalize(model.text_projection(pooled), dim=-1))
    anchors = torch.cat(embedded)  # [k, d]

    def tag(images: Tensor) -> list[list[str]]:
        # crops are squares: nothing is cut off
        small = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        seen = model.vision_model((small - mean) / std).pooler_output
        similar = F.normalize(model.visual_projection(seen), dim=-1) @ anchors.T  # [b, k]
        best, at = similar.topk(min(top, len(names)), dim=1)
        return [
            [names[i] for i, value in zip(row, values, strict=True) if value >= threshold]
            for row, values in zip(at.tolist(), best.tolist(), strict=True)
        ]

    return _in_batches(tag, device, batch)


def _in_batches(tag: Callable[[Tensor], list[list[str]]], device: str, size: int) -> TagCrops:
    """Tag crops in batches filled up to one size, so that neighbours change nothing."""

    def run(crops: Sequence[np.ndarray]) -> list[list[str]]:
        found: list[list[str]] = []
        for start in range(0, len(crops), size):
            part = list(crops[start : start + size])
            filled = np.stack([*part, *[part[-1]] * (size - len(part))])
            images = torch.from_numpy(filled).to(device).permute(0, 3, 1, 2).float() / 255
            with exact_inference():
                found += tag(images)[: len(part)]
        return found

    return run


def _fetched_ram() -> Path:
    found = find_weights("ram-swin-l", "the tagger")
    return found / "ram_swin_large_14m.pth" if found.is_dir() else found


def _read_tags(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(f"tagger.tags: {file}: {reason}") from None
    names = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not names:
        raise WeightsError(f"tagger.tags: {file} has no tag; a tag a line is expected")
    return names
