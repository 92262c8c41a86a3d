"""Exact rewrites of a one-step model for inference.

`optimize` applies them to a loaded model. In exact arithmetic none of them changes a result: what
is constant is computed once, linear maps that follow each other become one, and parameters that
nothing uses any more are dropped. Each is a function of `REWRITES` and can be left out.

Shapes: b batch, c latent channels, h w latent size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, cast

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import Decoder, Encoder
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from transformers.models.swin.modeling_swin import SwinLayer, SwinRelativePositionBias

from hbr.config import check
from hbr.models.config import TextPromptConfig
from hbr.models.hfie import HFIE, ImageEncoder
from hbr.models.inference.layers import (
    Constant,
    FixedQueries,
    FoldedUpsampling,
    JoinedAttention,
    NoTimeEmbedding,
    RefinedPicture,
    ResidualBlock,
    Shift,
    upsampling_kernel,
)
from hbr.models.inference.norms import Normalised
from hbr.models.inference.restorer import FoldedRestorer, Saving
from hbr.models.inference.stripes import Striped
from hbr.models.onestep import OneStepRestorer


def merge_adapters(model: FoldedRestorer) -> int:
    """LoRA: W + α/r · B A in place of W and its adapter."""
    parts = (model.unet, model.encoder, model.to_latent)
    if not any(".lora_" in name for name, _ in model.named_parameters()):
        return 0  # without importing peft
    from hbr.models.lora import lora_layers, merge

    found = sum(len(lora_layers(part)) for part in parts)
    for part in parts:
        merge(part)
    return found


def fold_timestep(model: FoldedRestorer) -> int:
    """The timestep is constant: its embedding becomes part of the bias of a convolution."""
    unet = model.unet
    t = torch.tensor([model.config.timestep], device=model.device)
    temb = unet.time_embedding(unet.time_proj(t).to(model.dtype))  # [1, width]

    def bias(block: ResnetBlock2D) -> Tensor | None:
        if block.time_emb_proj is None:
            return None
        seen: Tensor = block.time_emb_proj(block.nonlinearity(temb))
        return seen[0].detach()

    n = _replace(model.unet, ResnetBlock2D, lambda block: ResidualBlock(block, bias(block)))
    unet.time_proj, unet.time_embedding = NoTimeEmbedding(), NoTimeEmbedding()
    return n


def fold_blocks(model: FoldedRestorer) -> int:
    """The autoencoder's residual blocks: activations in place, no division by one."""
    return sum(_replace(part, ResnetBlock2D, ResidualBlock) for part in model.autoencoder)


def fold_one_step(model: FoldedRestorer) -> int:
    """ε → ẑ_H: the factor of ε goes into the U-Net's last convolution, in float32 or better."""
    conv = _precise(model.unet.conv_out)
    _assign(conv, conv.weight * model.gain, _bias(conv) * model.gain)
    model.unet.conv_out, model.gain = conv, 1.0
    return 1


def fold_posterior(model: FoldedRestorer) -> int:
    """The encoder's last convolution gives z_L: with `quant_conv`, its mean only, and scaled."""
    conv, quant = _precise(model.encoder.conv_out), model.to_latent.conv
    weight, bias = _matrix(quant, conv.weight.dtype)
    half = slice(0, len(weight) // 2)  # the rest is the logarithm of the variance
    weight, bias = (x[half] * model.to_latent.scale for x in (weight, bias))
    joined = torch.einsum("o m, m i y x -> o i y x", weight, conv.weight)
    _assign(conv, joined, weight @ _bias(conv) + bias)
    model.encoder.conv_out, model.to_latent = conv, nn.Identity()
    return 2


def fold_post_quant(model: FoldedRestorer) -> int:
    """The decoder's `post_quant_conv` P z + b goes into its first convolution.

    That one pads with zeros, to which z = −P⁻¹ b is mapped: z is shifted by it beforehand. Nothing
    is changed if P cannot be inverted well.
    """
    before = model.from_latent
    if before.conv is None:  # of another decoder than the own one
        return 0
    conv = model.decoder.conv_in
    weight, bias = _matrix(before.conv, torch.float64)
    weight = weight * before.scale
    if torch.linalg.cond(weight) > _LARGEST_CONDITION:
        return 0
    shift = torch.linalg.solve(weight, bias)
    joined = torch.einsum("o m y x, m i -> o i y x", conv.weight.double(), weight)
    _assign(conv, joined, _bias(conv))
    model.from_latent = Shift(shift.to(torch.promote_types(conv.weight.dtype, torch.float32)))
    return 2


def fold_upsampling(model: FoldedRestorer) -> int:
    """Nearest-neighbour upsampling and the 3×3 convolution behind it: see `upsampling_kernel`."""
    parts = (model.unet, *model.autoencoder)
    return sum(_replace(part, Upsample2D, _folded_upsampling) for part in parts)


def fold_refiner(model: FoldedRestorer) -> int:
    """The refiner takes what the decoder gives, not the image that is made of it."""
    picture = model.picture
    if picture.refiner is None or picture.patch_size % picture.refiner.patch_size:
        return 0
    model.picture = RefinedPicture(picture.patch_size, picture.refiner)
    return 1


def join_attention(model: FoldedRestorer) -> int:
    """Query, key and value of an attention from one product of matrices."""
    parts = (model.unet, *model.autoencoder)
    return sum(_replace(part, Attention, JoinedAttention) for part in parts)


def fuse_norms(model: FoldedRestorer) -> int:
    """Norms of the U-Net outside of its blocks, with SiLU where it follows: see `Normalised`."""
    unet = model.unet
    unet.conv_norm_out, unet.conv_act = Normalised(unet.conv_norm_out, silu=True), nn.Identity()
    transformers = [m for m in unet.modules() if isinstance(m, Transformer2DModel)]
    for transformer in transformers:
        transformer.norm = Normalised(transformer.norm, silu=False)
    return 1 + len(transformers)


def fix_keys(model: FoldedRestorer) -> int:
    """Keys and values of a prompt that is the same for every image are computed once."""
    if not isinstance(model.config.prompt, TextPromptConfig):
        return 0
    _replace(model.unet, Attention, JoinedAttention)
    prompt = model.prompt(torch.zeros(1, 3, 1, 1, device=model.device)).to(model.dtype)
    crossing = [m for m in model.unet.modules() if isinstance(m, JoinedAttention) and m.crosses]
    for layer in crossing:
        layer.keep(prompt)
    return len(crossing)


def fix_queries(model: FoldedRestorer) -> int:
    """HFIE's learnable queries are projected once."""
    if not isinstance(model.prompt, HFIE):
        return 0
    prompt: Any = model.prompt
    prompt.attention = FixedQueries(prompt.attention, prompt.query)
    return 1


def fix_swin(model: FoldedRestorer) -> int:
    """Swin's position biases and masks are computed once."""
    n = 0
    for encoder in model.prompt.modules():
        if not isinstance(encoder, ImageEncoder):
            continue
        n += _replace(encoder, SwinRelativePositionBias, lambda bias: Constant(bias()))
        for layer in encoder.modules():
            if isinstance(layer, SwinLayer):
                kept = functools.cache(layer.get_attn_mask)
                layer.get_attn_mask = kept
    return n


def stripe_autoencoder(model: FoldedRestorer) -> int:
    """Encoder and decoder work on stripes of rows where their activations are large, on a CPU."""
    n = 0
    for name, part in zip(("encoder", "decoder"), model.autoencoder, strict=True):
        if isinstance(part, Encoder | Decoder):  # not of another architecture
            _replace(part, ResnetBlock2D, ResidualBlock)
            striped = Striped(part)
            setattr(model, name, striped)
            n += len(striped.layers)
    return n


REWRITES: dict[str, Callable[[FoldedRestorer], int]] = {
    "adapters": merge_adapters,
    "timestep": fold_timestep,
    "blocks": fold_blocks,
    "one-step": fold_one_step,
    "posterior": fold_posterior,
    "post-quant": fold_post_quant,
    "upsampling": fold_upsampling,
    "refiner": fold_refiner,
    "attention": join_attention,
    "norms": fuse_norms,
    "keys": fix_keys,
    "queries": fix_queries,
    "swin": fix_swin,
    "stripes": stripe_autoencoder,
}
"""Every rewrite by its name, in the order in which they are applied."""

# Beyond this, the shift of `fold_post_quant` would lose digits.
_LARGEST_CONDITION = 1e4


@torch.no_grad()
def optimize(model: OneStepRestorer, rewrites: Collection[str] | None = None) -> FoldedRestorer:
    """Rewrite a one-step model for inference.

    Args:
        model: in eval mode; its parts are taken over and changed, so it is not to be used again.
        rewrites: names in `REWRITES`; None is all of them.

    Returns:
        a model that makes the same images; `savings` says what was rewritten.

    Raises:
        ConfigError: there is no such rewrite.
    """
    for name in rewrites or ():
        check(name in REWRITES, "rewrite", name, f"one of {', '.join(REWRITES)}")
    folded = FoldedRestorer(model).eval()
    before = _count(model)
    savings = []
    for name, rewrite in REWRITES.items():
        if rewrites is None or name in rewrites:
            layers = rewrite(folded)
            after = _count(folded)
            savings.append(Saving(name, layers, before - after))
            before = after
    folded.savings = tuple(saving for saving in savings if saving.layers)
    return folded.requires_grad_(False)


def _folded_upsampling(block: Upsample2D) -> nn.Module:
    conv = block.conv
    kernel = upsampling_kernel(_wide(conv.weight)).to(conv.weight.dtype)
    return FoldedUpsampling(kernel.contiguous(memory_format=_layout(conv.weight)), _bias(conv))


def _replace(root: nn.Module, kind: type[Any], make: Callable[[Any], nn.Module]) -> int:
    """Replace every module of a kind under `root`; returns how many there were."""
    found = [name for name, module in root.named_modules() if isinstance(module, kind)]
    for name in found:
        parent, _, child = name.rpartition(".")
        setattr(root.get_submodule(parent), child, make(root.get_submodule(name)))
    return len(found)


def _precise(conv: nn.Conv2d) -> nn.Conv2d:
    """The same convolution in float32 or better, whatever its input."""
    made = _PreciseConv(conv.in_channels, conv.out_channels, 3, padding=1, device="meta")
    made.weight = nn.Parameter(_wide(conv.weight))
    made.bias = nn.Parameter(_wide(_bias(conv)))
    return made


class _PreciseConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def _assign(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> None:
    """Set weight and bias, in the dtype and layout that the weight has."""
    dtype, layout = conv.weight.dtype, _layout(conv.weight)
    conv.weight = nn.Parameter(weight.to(dtype).contiguous(memory_format=layout))
    conv.bias = nn.Parameter(bias.to(dtype))
    conv.out_channels, conv.in_channels = weight.shape[:2]


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _matrix(conv: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weight [o, i] and bias [o] of a 1×1 convolution."""
    return conv.weight[:, :, 0, 0].to(dtype), _bias(conv).to(dtype)


def _bias(conv: nn.Conv2d) -> Tensor:
    return cast(Tensor, conv.bias).detach()


def _wide(tensor: Tensor) -> Tensor:
    """In float32, or in float64 if it is."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
