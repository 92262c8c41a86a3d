"""A one-step model as inference sees it: a chain of parts that can be rewritten one by one.

Shapes: b batch, H W pixels, c latent channels, h w latent size, q prompt tokens, d prompt width.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.models.inference.layers import Picture, PosteriorMean, PostQuant
from hbr.models.inference.norms import is_traced
from hbr.models.onestep import OneStepRestorer
from hbr.models.protocol import Conditions, Place


@dataclass(frozen=True)
class Saving:
    """What a rewrite did.

    Attributes:
        rewrite: its name in `hbr.models.inference.folding.REWRITES`.
        layers: number of layers that it replaced.
        parameters: how many parameters fewer there are; negative if there are more.
    """

    rewrite: str
    layers: int
    parameters: int


class FoldedRestorer(nn.Module):
    """The parts of a `OneStepRestorer`; before any rewrite it computes exactly the same.

    Attributes:
        to_latent: of the encoder's output, the scaled mode of the posterior.
        skip, gain: ẑ_H = skip · z_L + gain · (output of the U-Net).
        from_latent: of z, the decoder's input.
        picture: of the decoder's output and the model's input, the image.
        savings: which rewrites were applied, and what they saved.
    """

    encoder: Any
    to_latent: Any
    unet: Any
    from_latent: Any
    decoder: Any
    picture: Any
    prompt: Any
    savings: tuple[Saving, ...] = ()

    def __init__(self, model: OneStepRestorer) -> None:
        super().__init__()
        self.config, self.capabilities = model.config, model.capabilities
        self.dtype = model.dtype
        scaling, autoencoder = model.config.autoencoder.scaling_factor, model.autoencoder
        self.prompt = model.prompt
        self.encoder = autoencoder.encoder
        self.to_latent = PosteriorMean(autoencoder.quant_conv, scaling)
        self.unet = model.unet
        self.skip = model.alpha_bar**-0.5
        self.gain = -((1.0 - model.alpha_bar) ** 0.5) * self.skip
        decoding = model.config.autoencoder.decoding
        self.from_latent = PostQuant(autoencoder.post_quant_conv, 1.0 / decoding.scaling_factor)
        self.decoder = autoencoder.decoder
        self.picture = Picture(decoding.patch_size, model.refiner)

    @property
    def autoencoder(self) -> tuple[Any, Any]:
        """Encoder and decoder."""
        return self.encoder, self.decoder

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return cast(torch.device, self.unet.conv_in.weight.device)

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore`; a condition "prompt" replaces the prompt that the image makes."""
        return cast(Tensor, self(tiles, conditions.tokens.get("prompt")))

    def embed(self, text: str) -> Tensor:
        """The prompt of a text, [1, q, d]; only if `capabilities.takes_prompt`."""
        return cast(Tensor, self.prompt.embed([text]))

    def encode(self, image: Tensor) -> Tensor:
        """Encode an image: [b, 3, H, W] in [0, 1] → z_L [b, c, h, w]."""
        x = F.pixel_unshuffle(image * 2 - 1, self.config.autoencoder.patch_size)
        return cast(Tensor, self.to_latent(self.encoder(x.to(self.dtype))))

    def denoise(self, z_l: Tensor, p: Tensor) -> Tensor:
        """One step: z_L [b, c, h, w] and prompt p [b, q, d] → ẑ_H, float32 (or float64)."""
        # filled on the device: a copy from the CPU would wait, which no CUDA graph can record
        t = torch.full((), self.config.timestep, device=z_l.device)
        (seen,) = self.unet(z_l.to(self.dtype), t, p.to(self.dtype), return_dict=False)
        dtype = torch.promote_types(z_l.dtype, torch.float32)
        seen = seen.to(dtype) if self.gain == 1 else seen.to(dtype) * self.gain
        return torch.add(seen, z_l.to(dtype), alpha=self.skip)

    def decode(self, z: Tensor, lq: Tensor | None = None) -> Tensor:
        """Decode z: [b, c, h, w] → [b, 3, H, W], about [0, 1], not clamped.

        `lq` [b, 3, H, W] is what z was encoded from, for a refiner that sees it.
        """
        return cast(Tensor, self.picture(self.decoder(self.from_latent(z).to(self.dtype)), lq))

    def forward(self, lq: Tensor, p: Tensor | None = None) -> Tensor:
        """See `OneStepRestorer.forward`."""
        if p is None:
            p, z_l = self._encoded(lq)
        else:
            p, z_l = p.expand(len(lq), -1, -1), self.encode(lq)
        return self.decode(self.denoise(z_l, p), lq)

    def _encoded(self, lq: Tensor) -> tuple[Tensor, Tensor]:
        """Prompt and z_L of an image; in a CUDA graph they run side by side."""
        if not lq.is_cuda or is_traced() or not torch.cuda.is_current_stream_capturing():
            return self.prompt(lq), self.encode(lq)
        main = torch.cuda.current_stream(lq.device)
        side = _side_stream(lq.device, threading.get_ident())
        side.wait_stream(main)
        with torch.cuda.stream(side):
            p = cast(Tensor, self.prompt(lq))
        z_l = self.encode(lq)
        main.wait_stream(side)
        # memory of the one stream is not given away while the other uses it
        lq.record_stream(side)
        p.record_stream(main)
        return p, z_l


@functools.cache
def _side_stream(device: torch.device, thread: int) -> torch.cuda.Stream:
    """A thread's stream of high priority: nothing else takes those, while the others are shared."""
    return torch.cuda.Stream(device, priority=-1)
