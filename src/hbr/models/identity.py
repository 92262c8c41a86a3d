"""Initialisation near the identity, for restorers that are trained from scratch.

A group-normalised autoencoder with random weights takes thousands of steps to learn to reproduce
its input. This initialisation does so from the first step: the latent is the low-frequency part of
each patch's DCT, carried as s and −s, for which SiLU(s) − SiLU(−s) = s; residual blocks add
nothing; the U-Net predicts nearly ε = 0. It needs an autoencoder of one level (`patch_size` does
the downsampling). The U-Net then trains with an autoencoder that already works.

Shapes: k channels of pixels (3 · patch²), c latent channels, m width of the autoencoder.
"""

from __future__ import annotations

import math

import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from hbr.config import ConfigError
from hbr.models.onestep import OneStepRestorer

# a pair of constant channels in each group keeps its deviation near this, whatever the image
_ANCHOR = 16.0
# the patch mean varies about this many times more than the other coefficients
_MEAN_GAIN = 0.25
# full-range BT.601, luma first
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@torch.no_grad()
def start_at_identity(model: OneStepRestorer, *, one_step: bool = True) -> None:
    """Set the weights so that the model reproduces its input, except for the finest detail.

    Args:
        model: changed in place.
        one_step: include the one step; otherwise encoder and decoder alone are the identity.

    Raises:
        ConfigError: the autoencoder has several levels, attention, or too few channels.
    """
    config = model.config.autoencoder
    width, groups = config.block_out_channels[0], config.norm_num_groups
    if len(config.block_out_channels) != 1 or config.mid_attention:
        raise ConfigError("a start at the identity needs an autoencoder of one level, no attention")
    c = config.latent_channels
    most = min((width // groups - 2) // 2 * groups, 3 * config.patch_size**2)
    if c > most:
        raise ConfigError(f"latent_channels is {c}; a start at the identity takes {most} or less")
    basis, inverse = _patch_basis(config.patch_size, c)  # [c, k], [k, c]
    encoder, decoder = model.autoencoder.encoder, model.autoencoder.decoder
    for module in model.autoencoder.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
    _spread(encoder.conv_in, basis, groups)
    _gather(encoder.conv_norm_out, encoder.conv_out, torch.eye(c), groups)
    _pass(model.autoencoder.quant_conv, c)
    _pass(model.autoencoder.post_quant_conv, c)
    # the one step divides by this when ε = 0
    gain = model.alpha_bar**0.5 if one_step else 1.0
    _spread(decoder.conv_in, torch.eye(c) * gain, groups)
    _gather(decoder.conv_norm_out, decoder.conv_out, inverse, groups)
    model.unet.conv_out.weight.mul_(0.1)
    nn.init.zeros_(model.unet.conv_out.bias)


@torch.no_grad()
def whiten(model: OneStepRestorer, images: Tensor) -> None:
    """Normalise every channel of z to mean 0 and deviation 1 on these images; decoding undoes it.

    Args:
        model: its autoencoder is changed in place; decoded images stay the same.
        images: [b, 3, H, W] in [0, 1].
    """
    c = model.config.autoencoder.latent_channels
    z = model.encode(images)
    mean, std = z.mean(dim=(0, 2, 3)), z.std(dim=(0, 2, 3)).clamp(min=1e-3)
    factor = model.config.autoencoder.scaling_factor
    into, out = model.autoencoder.quant_conv, model.autoencoder.post_quant_conv
    out.bias.add_(out.weight[:, :, 0, 0] @ mean / factor)
    out.weight.mul_(std.view(1, -1, 1, 1))
    into.weight[:c].div_(std.view(-1, 1, 1, 1))
    into.bias[:c].sub_(mean / factor).div_(std)


def _pairs(width: int, groups: int) -> tuple[list[int], list[int]]:
    """Channels of +s and of −s for every signal s; the last two of a group are its anchors."""
    size = width // groups
    plus = [g * size + i for i in range(0, size - 2, 2) for g in range(groups)]
    return plus, [channel + 1 for channel in plus]


def _patch_basis(patch: int, c: int) -> tuple[Tensor, Tensor]:
    """Patches in pixel-unshuffle order → the c lowest coefficients, and back."""
    position = torch.arange(patch, dtype=torch.float64)
    dct = torch.cos((2 * position + 1) * position[:, None] * math.pi / (2 * patch))
    dct *= math.sqrt(2 / patch)
    dct[0] /= math.sqrt(2)
    colour = torch.tensor(_YCBCR, dtype=torch.float64)
    full = torch.einsum("sc,ui,vj->suvcij", colour, dct, dct).reshape(3 * patch**2, -1)
    plane, u, v = (
        t.flatten()
        for t in torch.meshgrid(*(torch.arange(n) for n in (3, patch, patch)), indexing="ij")
    )
    # chroma coefficients are ranked with luma coefficients that are half a patch higher
    order = torch.argsort(u + v + (plane > 0) * patch / 2, stable=True)
    gains = torch.where(u + v == 0, _MEAN_GAIN, 1.0).double()
    full = full * gains[:, None]
    inverse = torch.linalg.inv(full)
    return full[order[:c]].float(), inverse[:, order[:c]].float()


def _spread(conv: nn.Conv2d, matrix: Tensor, groups: int) -> None:
    """Set a convolution to output s = matrix · input and −s, and the anchors."""
    nn.init.zeros_(conv.weight)
    size = conv.out_channels // groups
    anchors = torch.zeros(groups, size)
    anchors[:, -2], anchors[:, -1] = _ANCHOR, -_ANCHOR
    assert conv.bias is not None
    conv.bias.copy_(anchors.flatten())
    middle = conv.kernel_size[0] // 2
    for row, plus, minus in zip(matrix, *_pairs(conv.out_channels, groups), strict=False):
        conv.weight[plus, : len(row), middle, middle] = row
        conv.weight[minus, : len(row), middle, middle] = -row


def _gather(norm: nn.GroupNorm, conv: nn.Conv2d, matrix: Tensor, groups: int) -> None:
    """Set norm and convolution to undo the norm, recover s from SiLU, and apply the matrix."""
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    rows, c = matrix.shape
    matrix = matrix * (_ANCHOR * math.sqrt(2 * groups / norm.num_channels))
    middle = conv.kernel_size[0] // 2
    plus, minus = (channels[:c] for channels in _pairs(norm.num_channels, groups))
    conv.weight[:rows, plus, middle, middle] = matrix
    conv.weight[:rows, minus, middle, middle] = -matrix


def _pass(conv: nn.Conv2d, c: int) -> None:
    nn.init.zeros_(conv.weight)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    conv.weight[:c, :c, 0, 0] = torch.eye(c)
