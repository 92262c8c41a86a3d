"""The one-step restorer: encode, one step of the U-Net, decode (OSDHuman §3.1, after OSEDiff).

Shapes: b batch, H W pixels, c latent channels, h w latent size, q prompt tokens, d prompt width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from hbr.models.config import DAPEConfig, HFIEConfig, PromptConfig, RestorerConfig
from hbr.models.hfie import HFIE
from hbr.models.networks import build_autoencoder, build_unet, decode, encode
from hbr.models.protocol import Conditions, Place
from hbr.models.refiner import Refiner
from hbr.models.schedule import alphas_cumprod, one_step


class OneStepRestorer(nn.Module):
    """Restores a batch of images in one pass.

    The latent of the input is the mode of the posterior, so the output is deterministic. Weights
    are random until they are loaded (`hbr.models.load_model`).
    """

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config, self.capabilities = config, config.capabilities
        self.autoencoder = build_autoencoder(config.autoencoder)
        self.unet = build_unet(config.unet, config.autoencoder.latent_channels)
        self.prompt = build_prompt(config.prompt)
        self.refiner = None if config.refiner is None else Refiner(config.refiner)
        self.alpha_bar = float(alphas_cumprod(config.schedule)[config.timestep])

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore`; a condition "prompt" replaces the prompt that the image makes."""
        return cast(Tensor, self(tiles, conditions.tokens.get("prompt")))

    def embed(self, text: str) -> Tensor:
        """The prompt of a text, [1, q, d]; only if `capabilities.takes_prompt`."""
        return cast(Tensor, cast(Any, self.prompt).embed([text]))

    def encode(self, image: Tensor) -> Tensor:
        """Encode an image: [b, 3, H, W] in [0, 1] → z [b, c, h, w], the scaled posterior mode."""
        return encode(self.autoencoder, self.config.autoencoder, image)

    def predict(self, z_l: Tensor, p: Tensor, t: Tensor | None = None) -> Tensor:
        """Predict ε at t [b] (default T_L): z_l [b, c, h, w], prompt p [b, q, d] → [b, c, h, w]."""
        if t is None:
            t = torch.tensor(self.config.timestep, device=z_l.device)
        return cast(Tensor, self.unet(z_l.to(self.dtype), t, p.to(self.dtype)).sample)

    def decode(self, z: Tensor, lq: Tensor | None = None) -> Tensor:
        """Decode z: [b, c, h, w] → [b, 3, H, W], about [0, 1], not clamped.

        `lq` [b, 3, H, W] is what z was encoded from, for a refiner that sees it.
        """
        image = decode(self.autoencoder, self.config.autoencoder, z)
        return image if self.refiner is None else cast(Tensor, self.refiner(image, lq))

    def forward(self, lq: Tensor, p: Tensor | None = None) -> Tensor:
        """Restore [b, 3, H, W] in [0, 1] → [b, 3, H, W], about [0, 1], not clamped.

        H and W must be multiples of `capabilities.multiple_of`. The prompt p, [b, q, d] or
        [1, q, d], is made of the image unless it is given.
        """
        return self.decode(self.restore_latent(lq, p), lq)

    def restore_latent(self, lq: Tensor, p: Tensor | None = None) -> Tensor:
        """Restore the latent of [b, 3, H, W] → ẑ_H [b, c, h, w]; otherwise as `forward`."""
        p = self.prompt(lq) if p is None else p.expand(len(lq), -1, -1)
        z_l = self.encode(lq)
        return one_step(z_l, self.predict(z_l, p), self.alpha_bar)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.unet.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.conv_in.weight.device


def build_prompt(config: PromptConfig) -> nn.Module:
    """Build the prompt extractor of a configuration, with random weights.

    It makes the prompt of an image, which tells the U-Net what to restore: [b, 3, h, w] in [0, 1]
    → p [b, q, d].
    """
    if isinstance(config, HFIEConfig):
        return HFIE(config)
    # most models need neither CLIP nor BERT, which are slow to import
    if isinstance(config, DAPEConfig):
        from hbr.models.dape import DAPE

        return DAPE(config)
    from hbr.models.text import TextPrompt

    return TextPrompt(config)
