"""The fixed prompt of a text, by the text encoder of a diffusers folder.

Shapes: q tokens (77), d width.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hbr.models.files import WeightsError


@torch.no_grad()
def embed_text(folder: str | Path, text: str) -> Tensor:
    """The prompt of a text: [q, d], float32.

    Args:
        folder: in diffusers layout, with `tokenizer/` and `text_encoder/` (CLIP).
        text: cut at the number of tokens that the encoder takes.

    Raises:
        WeightsError: one of the two is missing or damaged, or weights of the encoder are missing.
    """
    folder = Path(folder)
    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise WeightsError(f"{folder} has no {part}/; a fixed prompt needs it")
    try:
        with _quiet():
            tokenizer, encoder, loaded = _load(folder)
    except Exception as error:  # whatever a damaged folder makes of it
        line = " ".join(str(error).split())[:200]
        raise WeightsError(f"{folder}: its text encoder does not load: {line}") from None
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        # a buffer that older versions saved
        found = [key for key in loaded[what] if "position_ids" not in str(key)]
        if found:
            state = what.removesuffix("_keys")
            raise WeightsError(
                f"{folder}/text_encoder: {state} weight {sorted(map(str, found))[0]}"
            )
    ids = tokenizer(
        text,
        padding="max_length",
        max_length=encoder.config.max_position_embeddings,
        truncation=True,
        return_tensors="pt",
    ).input_ids  # [1, q]
    embedding: Tensor = encoder.eval()(ids).last_hidden_state[0]  # [q, d]
    return embedding.float()


def _load(folder: Path) -> tuple[Any, Any, dict[str, Any]]:
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    encoder, loaded = CLIPTextModel.from_pretrained(
        folder / "text_encoder",
        local_files_only=True,
        output_loading_info=True,
        dtype=torch.float32,
    )
    return tokenizer, encoder, loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and no advice of transformers: what matters of it becomes an error here."""
    from transformers.utils import logging as transformers_logging

    log = logging.getLogger("transformers")
    level = log.level
    had_bar = transformers_logging.is_progress_bar_enabled()
    try:
        log.setLevel(logging.CRITICAL)
        transformers_logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        if had_bar:
            transformers_logging.enable_progress_bar()
