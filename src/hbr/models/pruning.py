"""A narrower decoder that begins with the weightiest channels of a wider one.

Each stream of channels between residual connections is cut once, so that what is added to it
afterwards is cut alike. Where both have the same groups, each group keeps its own weightiest
channels, and the statistics of the norms stay near those of the wide decoder.

Shapes: o i channels of a convolution, c latent channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from hbr.config import check
from hbr.models.autoencoder_config import DecoderConfig


def prune_decoder(
    weights: Mapping[str, Tensor], wide: DecoderConfig, narrow: DecoderConfig
) -> dict[str, Tensor]:
    """The weights of a narrower "kl" decoder, from those of a wide one.

    Args:
        weights: of the wide decoder, as diffusers names them.
        wide, narrow: the configurations; they differ in the widths, and in the groups of the norms.

    Raises:
        ConfigError: they differ in more, or a level would become wider.
    """
    _check_alike(wide, narrow)
    cut = _Cut(weights, wide.norm_num_groups, narrow.norm_num_groups)
    widths = tuple(reversed(narrow.block_out_channels))
    every = torch.arange(wide.latent.channels)
    stream = cut.chosen(widths[0], "conv_in")
    cut.layer("conv_in", every, stream)
    stream = cut.block("mid_block.resnets.0", stream, widths[0])
    if wide.mid_attention:
        cut.attention("mid_block.attentions.0", stream)
    stream = cut.block("mid_block.resnets.1", stream, widths[0])
    for level, width in enumerate(widths):
        at = f"up_blocks.{level}"
        for i in range(narrow.layers_per_block + 1):
            stream = cut.block(f"{at}.resnets.{i}", stream, width)
        if level < len(widths) - 1:
            seen, stream = stream, cut.chosen(width, f"{at}.upsamplers.0.conv")
            cut.layer(f"{at}.upsamplers.0.conv", seen, stream)
    cut.norm("conv_norm_out", stream)
    cut.layer("conv_out", stream, torch.arange(len(weights["conv_out.weight"])))
    return cut.made


class _Cut:
    """Layers of the wide decoder with the channels that are kept."""

    def __init__(self, weights: Mapping[str, Tensor], groups: int, kept_groups: int) -> None:
        self.weights, self.groups, self.kept_groups = weights, groups, kept_groups
        self.made: dict[str, Tensor] = {}

    def chosen(self, width: int, *layers: str) -> Tensor:
        """The channels that these layers write most into, in order."""
        rows = [
            self.weights[f"{layer}.{kind}"].reshape(len(self.weights[f"{layer}.bias"]), -1)
            for layer in layers
            for kind in ("weight", "bias")
        ]
        scores = torch.cat(rows, dim=1).float().norm(dim=1)
        if self.groups != self.kept_groups:
            return scores.topk(width).indices.sort().values
        size = len(scores) // self.groups
        best = scores.view(self.groups, size).topk(width // self.groups, dim=1).indices
        first = torch.arange(self.groups)[:, None] * size
        return (best.sort(dim=1).values + first).flatten()

    def layer(self, name: str, seen: Tensor, written: Tensor) -> None:
        """A convolution or linear layer, from some channels to some."""
        self.made[f"{name}.weight"] = self.weights[f"{name}.weight"][written][:, seen]
        self.made[f"{name}.bias"] = self.weights[f"{name}.bias"][written]

    def norm(self, name: str, stream: Tensor) -> None:
        """A GroupNorm."""
        for kind in ("weight", "bias"):
            self.made[f"{name}.{kind}"] = self.weights[f"{name}.{kind}"][stream]

    def block(self, name: str, stream: Tensor, width: int) -> Tensor:
        """A residual block; returns the channels of its output."""
        self.norm(f"{name}.norm1", stream)
        inside = self.chosen(width, f"{name}.conv1")
        self.layer(f"{name}.conv1", stream, inside)
        self.norm(f"{name}.norm2", inside)
        out, shortcut = stream, f"{name}.conv_shortcut"
        if f"{shortcut}.weight" in self.weights:
            out = self.chosen(width, f"{name}.conv2", shortcut)
            self.layer(shortcut, stream, out)
        self.layer(f"{name}.conv2", inside, out)
        return out

    def attention(self, name: str, stream: Tensor) -> None:
        """A self-attention of one head, whose inner channels are cut as the stream."""
        self.norm(f"{name}.group_norm", stream)
        for layer in ("to_q", "to_k", "to_v", "to_out.0"):
            self.layer(f"{name}.{layer}", stream, stream)


def fold_post_quant(
    weights: Mapping[str, Tensor], weight: Tensor, bias: Tensor
) -> dict[str, Tensor]:
    """The weights of a decoder whose first convolution does what `post_quant_conv` did before it.

    It is exact but for the border, where the bias would be padded too.

    Args:
        weights: of the decoder.
        weight, bias: of its `post_quant_conv`, [c, c, 1, 1] and [c].
    """
    first = weights["conv_in.weight"]
    joined = torch.einsum("o m y x, m i -> o i y x", first, weight[:, :, 0, 0])
    added = first.sum(dim=(2, 3)) @ bias
    changed = {"conv_in.weight": joined, "conv_in.bias": weights["conv_in.bias"] + added}
    return {**weights, **changed}


def _check_alike(wide: DecoderConfig, narrow: DecoderConfig) -> None:
    for name in ("kind", "latent", "layers_per_block", "mid_attention", "patch_size"):
        theirs, ours = getattr(wide, name), getattr(narrow, name)
        check(ours == theirs, f"decoder.{name}", ours, f"{theirs}, as in the wide decoder")
    check(narrow.kind == "kl", "decoder.kind", narrow.kind, "kl, to be cut from another")
    theirs, ours = wide.block_out_channels, narrow.block_out_channels
    fits = len(ours) == len(theirs) and all(a <= b for a, b in zip(ours, theirs, strict=True))
    # where the widths of two levels agree, there is no shortcut between their streams
    alike = fits and _changes(ours) == _changes(theirs)
    check(alike, "decoder.block_out_channels", ours, f"{theirs} made narrower, equal where it is")


def _changes(widths: tuple[int, ...]) -> list[bool]:
    return [a == b for a, b in itertools.pairwise(widths)]
