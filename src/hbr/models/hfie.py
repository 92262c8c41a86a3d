"""HFIE: the image as a prompt.

Shapes: b batch, n image tokens (the mean first), q queries, d widths.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor, nn
from transformers import SwinConfig, SwinModel

from hbr.models.config import HFIEConfig, ImageEncoderConfig

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ImageEncoder(nn.Module):
    """RAM's image encoder: Swin tokens preceded by their mean, then a linear projection.

    Source: Recognize Anything (2023); OSDHuman §3.2 uses it frozen.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        swin = SwinConfig(
            image_size=config.image_size,
            patch_size=4,
            embed_dim=config.embed_dim,
            depths=list(config.depths),
            num_heads=list(config.num_heads),
            window_size=config.window_size,
            drop_path_rate=0.0,
        )
        self.swin = SwinModel(swin, add_pooling_layer=False)
        self.image_proj = nn.Linear(config.width, config.proj_dim)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def tokens(self, image: Tensor) -> Tensor:
        """Tokens before the projection: [b, 3, h, w] in [0, 1] → [b, n, width]."""
        size = (self.image_size, self.image_size)
        if image.shape[-2:] != size:
            # without antialiasing, as the published tagger does
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        x = (image - self.mean) / self.std
        x = self.swin(pixel_values=x.to(self.image_proj.weight.dtype)).last_hidden_state
        return torch.cat([x.mean(dim=1, keepdim=True), x], dim=1)  # [b, n, d]

    def forward(self, image: Tensor) -> Tensor:
        """Image tokens: [b, 3, h, w] in [0, 1] → [b, n, proj_dim]."""
        return cast(Tensor, self.image_proj(self.tokens(image)))


class HFIE(nn.Module):
    """High-fidelity image embedder (OSDHuman §3.2): the image itself becomes the prompt.

    Learnable queries attend to the tokens of the image encoder, which in the paper is RAM's and
    frozen; the result replaces the 77 text tokens in the U-Net's cross-attention.
    """

    def __init__(self, config: HFIEConfig) -> None:
        super().__init__()
        self.encoder = ImageEncoder(config.encoder)
        self.query = nn.Parameter(torch.randn(config.n_queries, config.width) * 0.02)
        self.attention = nn.MultiheadAttention(
            config.width,
            config.heads,
            dropout=config.dropout,
            kdim=config.encoder.proj_dim,
            vdim=config.encoder.proj_dim,
            batch_first=True,
        )
        self.norm = nn.LayerNorm(config.width) if config.norm == "layer" else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """The prompt: [b, 3, h, w] in [0, 1] → [b, q, width]."""
        tokens = self.encoder(image)  # [b, n, proj_dim]
        query = repeat(self.query, "q d -> b q d", b=image.shape[0])
        p, _ = self.attention(query, tokens, tokens, need_weights=False)  # [b, q, width]
        return cast(Tensor, self.norm(p))
