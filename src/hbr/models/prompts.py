"""Prompt extractors, built from their configuration.

Shapes: b batch, q prompt tokens, d prompt width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from hbr.models.config import DAPEConfig, HFIEConfig, PromptConfig, TextPromptConfig
from hbr.models.hfie import HFIE


@runtime_checkable
class TakesText(Protocol):
    """A prompt extractor that can also embed a text."""

    def embed(self, texts: Sequence[str]) -> Tensor:
        """The prompts of texts: [b, q, d]."""


def build_prompt(config: PromptConfig) -> nn.Module:
    """Build the extractor of a configuration, with random weights.

    It makes the prompt of an image, which tells the U-Net what to restore: [b, 3, h, w] in [0, 1]
    → p [b, q, d].
    """
    match config:
        case HFIEConfig():
            return HFIE(config)
        # Most models need neither CLIP nor BERT, which are slow to import.
        case TextPromptConfig():
            from hbr.models.text import TextPrompt

            return TextPrompt(config)
        case DAPEConfig():
            from hbr.models.dape import DAPE

            return DAPE(config)
