"""The tags of the image as a text prompt: SeeSR's DAPE (Wu et al. 2024), as OSEDiff uses it.

Shapes: b batch, q tokens, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hbr.models.config import DAPEConfig
from hbr.models.tagger import Tagger
from hbr.models.text import TextEncoder


class DAPE(nn.Module):
    """Tags the image and embeds the tags as text; frozen."""

    def __init__(self, config: DAPEConfig) -> None:
        super().__init__()
        self.template = config.template
        self.tagger = Tagger(config.tagger)
        self.text = TextEncoder(config.text)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """The prompt: [b, 3, h, w] in [0, 1] → [b, q, d]."""
        return self.embed(self.describe(image))

    def describe(self, image: Tensor) -> list[str]:
        """The text that is embedded for each image [b, 3, h, w] in [0, 1]."""
        return [
            self.template.replace("{tags}", ", ".join(tags)) for tags in self.tagger.tags(image)
        ]

    def embed(self, texts: Sequence[str]) -> Tensor:
        """The prompts of texts: [b, q, d]."""
        return cast(Tensor, self.text(texts))
