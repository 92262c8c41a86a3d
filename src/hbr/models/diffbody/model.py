"""DiffBody: stage 1 removes the damage, stage 2 draws the details under guidance.

Shapes: b batch, H W pixels, c latent channels, h w latent size, k condition channels, q d the
prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hbr.models.diffbody.config import DiffBodyConfig
from hbr.models.diffbody.control import build_control, predict_controlled
from hbr.models.diffbody.parts import PartNetwork, foreground, part_loss
from hbr.models.networks import build_autoencoder, build_unet, checkpoint_decoder, decode, encode
from hbr.models.protocol import Conditions, PartLoss, Place, Sampling
from hbr.models.sampling import (
    Guidance,
    Watch,
    in_windows,
    respaced,
    sample_ddim,
    sample_guided,
    sample_unipc,
)
from hbr.models.schedule import add_noise
from hbr.models.swinir import SwinIR
from hbr.models.text import TextEncoder
from hbr.models.vsd import Predict, guided

# neighbouring windows share a quarter
_OVERLAPS_PER_WINDOW = 4
# images up to this many times the native size go through the autoencoder as a whole
_LARGEST_PER_NATIVE = 2


class DiffBody(nn.Module):
    """A `hbr.models.protocol.SamplingModel`."""

    def __init__(self, config: DiffBodyConfig) -> None:
        """Make it with random weights; the control branch begins as a copy of the U-Net."""
        super().__init__()
        self.config, self.capabilities = config, config.capabilities
        self.stage1 = SwinIR(config.stage1)
        self.autoencoder = build_autoencoder(config.autoencoder)
        self.unet = build_unet(config.unet, config.autoencoder.latent_channels)
        self.control = build_control(self.unet, config.condition_channels)
        self.text = None if config.text is None else TextEncoder(config.text)
        self.parts = None if config.parts is None else PartNetwork(config.parts)
        # for the gradient of the guidance, which goes through the decoder
        checkpoint_decoder(self.autoencoder)
        # large photos are encoded and decoded in overlapping tiles
        self.autoencoder.enable_tiling()
        edge = _LARGEST_PER_NATIVE * config.native_size
        self.autoencoder.tile_sample_min_size = edge // config.autoencoder.patch_size
        self.autoencoder.tile_latent_min_size = edge // config.autoencoder.factor

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return self.unet.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.conv_in.weight.device

    @property
    def first(self) -> SwinIR:
        """Stage 1."""
        return self.stage1

    def embed(self, text: str) -> Tensor:
        """The prompt of a text, [1, q, d]."""
        return self.embed_all([text])

    def embed_all(self, texts: Sequence[str]) -> Tensor:
        """The prompts of texts, [b, q, d]; without a text encoder [b, 1, d], zeros."""
        if self.text is None:
            width = self.config.unet.cross_attention_dim
            return torch.zeros(len(texts), 1, width, device=self.device, dtype=self.dtype)
        return cast(Tensor, self.text(texts))

    def attention(self, image: Tensor) -> Tensor | None:
        """The map of bodies [b, 1, H, W] in [0, 1] of [b, 3, H, W]; None without `parts`."""
        if self.parts is None:
            return None
        return foreground(self.parts(image).posteriors, (image.shape[-2], image.shape[-1]))

    def encode(self, image: Tensor) -> Tensor:
        """Encode an image: [b, 3, H, W] in [0, 1] → z [b, c, h, w], the scaled posterior mode."""
        return encode(self.autoencoder, self.config.autoencoder, image)

    def decode(self, z: Tensor) -> Tensor:
        """Decode z: [b, c, h, w] → [b, 3, H, W], about [0, 1], not clamped."""
        return decode(self.autoencoder, self.config.autoencoder, z)

    def condition(self, image: Tensor, conditions: Conditions) -> Tensor:
        """What the control branch sees: cat(E(I_reg), E(I_pose), I_attn), [b, k, h, w].

        Args:
            image: I_reg [b, 3, H, W] in [0, 1].
            conditions: maps "pose" [b, 3, H, W] and "attention" [b, 1, H, W], both in [0, 1]; a
                missing one is a blank map.
        """
        z = self.encode(image)
        seen, maps = [z], conditions.maps
        for name in self.config.conditions:
            if name == "pose":
                seen.append(self.encode(maps.get("pose", torch.zeros_like(image))))
            else:
                blank = torch.zeros_like(image[:, :1])
                attention = maps.get("attention", blank)
                seen.append(
                    F.adaptive_avg_pool2d(attention, (z.shape[-2], z.shape[-1])).to(z.dtype)
                )
        return torch.cat(seen, dim=1)

    def predict(self, z_t: Tensor, t: Tensor, p: Tensor, condition: Tensor) -> Tensor:
        """Predict ε: z_t [b, c, h, w], t [b], p [b, q, d], condition [b, k, h, w]."""
        z_t, p, condition = (x.to(self.dtype) for x in (z_t, p, condition))
        return predict_controlled(self.unet, self.control, z_t, t, p, condition)

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore` and `SamplingModel`: sample under the guidance of `conditions`."""
        # tensors of inference mode cannot be part of the graph that guidance needs
        with torch.inference_mode(False), torch.no_grad():
            return self._sample(tiles.clone(), conditions)

    def _sample(self, tiles: Tensor, conditions: Conditions) -> Tensor:
        sampling, schedule = conditions.sampling, self.config.schedule
        generator = torch.Generator().manual_seed(conditions.seed)

        def noise(z: Tensor) -> Tensor:
            # on the CPU: one seed gives one noise on every device
            return torch.randn(z.shape, generator=generator).to(z)

        steps = respaced(schedule, sampling.steps, sampling.strength)
        condition = self.condition(tiles, conditions)
        z_reg = condition[:, : self.config.autoencoder.latent_channels].float()
        z = noise(z_reg)
        if sampling.start == "photo":
            z = add_noise(z_reg, z, torch.tensor(steps.alpha_bar[:1]).to(z))
        predict = self._prompted(condition, conditions)
        watch = self._watched(conditions)
        match sampling.sampler:
            case "ddim":
                z = sample_ddim(predict, z, steps, watch)
            case "unipc":
                z = sample_unipc(predict, z, schedule, steps, watch)
            case name:
                guidance = self._guidance(tiles, conditions) if name == "guided" else None
                z = sample_guided(predict, z, steps, noise, guidance, watch)
        return self.decode(z)

    def _prompted(self, condition: Tensor, conditions: Conditions) -> Predict:
        """The network in windows, with classifier-free guidance by the text."""
        given = conditions.tokens.get("prompt")
        p = self.embed("") if given is None else given.clone()
        scale = conditions.sampling.text_guidance
        edge = self._window(conditions.sampling)

        def network(p: Tensor) -> Predict:
            def predict(z_t: Tensor, t: Tensor) -> Tensor:
                def part(x: Tensor) -> Tensor:
                    z, seen = x.split((z_t.shape[1], condition.shape[1]), dim=1)
                    return self.predict(z, t, p.expand(len(z), -1, -1), seen).to(z.dtype)

                x = torch.cat([z_t, condition.to(z_t.dtype)], dim=1)
                return in_windows(part, x, edge, edge // _OVERLAPS_PER_WINDOW)

            return predict

        if scale == 1 or self.text is None:
            return network(p)
        return guided(network(p), network(self.embed(self.config.negative_prompt)), scale)

    def _window(self, sampling: Sampling) -> int:
        """Edge of the windows in latent cells, a multiple of the U-Net's factor."""
        pixels = sampling.tile or self.config.native_size
        return max(1, pixels // self.config.multiple_of) * self.config.unet.factor

    def _guidance(self, image: Tensor, conditions: Conditions) -> Guidance:
        """L_part between the decoded z̃_0 and I_reg (DiffBody Eq. 6)."""
        sampling = conditions.sampling
        large = max(image.shape[-2:]) > self.config.native_size
        people = conditions.people if large else ()
        return Guidance(
            loss=self._loss_to(image, sampling.part_loss, people),
            scale=sampling.guidance,
            through=sampling.through,
            window=sampling.window,
            repeats=sampling.repeats,
        )

    def _loss_to(
        self, image: Tensor, kind: PartLoss, people: Sequence[tuple[int, int, int, int]]
    ) -> Callable[[Tensor], Tensor]:
        """L_part of z̃_0 [b, c, h, w], summed over the crops of people, or of the whole image."""
        parts = self.parts
        if parts is None:
            # without a network of parts, the images themselves are compared
            return lambda z_0: (self.decode(z_0) - image.to(z_0)).square().sum()
        whole = (0, 0, image.shape[-1], image.shape[-2])
        places = [(..., slice(y0, y1), slice(x0, x1)) for x0, y0, x1, y1 in people or [whole]]
        wanted = [parts(image[place]).detach() for place in places]
        chosen = "cosine" if kind == "auto" else kind

        def loss(z_0: Tensor) -> Tensor:
            made = self.decode(z_0)
            each = zip(places, wanted, strict=True)
            return torch.stack([part_loss(parts(made[at]), w, chosen) for at, w in each]).sum()

        return loss

    def _watched(self, conditions: Conditions) -> Watch | None:
        watch = conditions.watch
        if watch is None:
            return None
        return lambda done, total, z_0: watch(
            done, total, lambda: self.decode(z_0).detach().clamp(0, 1)
        )
