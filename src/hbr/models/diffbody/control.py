"""The control branch: a trainable copy of the U-Net's encoder that sees the conditions.

It is diffusers' `ControlNetModel` (Zhang et al. 2023) with its hint embedding, which is made for
images, replaced by one convolution over the conditions at latent size. That equals widening the
first convolution from 4 to 13 channels, as DiffBody and DiffBIR do, because a convolution over
concatenated channels is the sum of the convolutions over each part.

Shapes: b batch, c latent channels, k condition channels, h w latent size, q d the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from hbr.weights import WeightsError

_FIRST = "conv_in.weight"
_HINT = "controlnet_cond_embedding"


def build_control(unet: UNet2DConditionModel, condition_channels: int) -> ControlNetModel:
    """Build the control branch of a U-Net, with the U-Net's weights and a hint of zeros.

    Args:
        unet: the U-Net; its encoder and middle are copied.
        condition_channels: k.
    """
    control = ControlNetModel.from_unet(unet, load_weights_from_unet=False)
    width = unet.config.block_out_channels[0]
    hint = nn.Conv2d(condition_channels, width, 3, padding=1)
    control.controlnet_cond_embedding = hint
    copy_encoder(control, unet)
    return control


@torch.no_grad()
def copy_encoder(control: ControlNetModel, unet: UNet2DConditionModel) -> None:
    """Start the control branch anew: the U-Net's weights, and zeros where it joins the U-Net."""
    theirs = unet.state_dict()
    for name, tensor in control.state_dict().items():
        if name in theirs:
            tensor.copy_(theirs[name])
        else:  # the hint, and the zero convolutions of the outputs
            tensor.zero_()


def predict_controlled(
    unet: UNet2DConditionModel,
    control: ControlNetModel,
    z_t: Tensor,
    t: Tensor,
    p: Tensor,
    condition: Tensor,
) -> Tensor:
    """Predict ε: z_t [b, c, h, w], t [b], p [b, q, d], condition [b, k, h, w] → [b, c, h, w].

    All of them in the precision of the networks.
    """
    down, middle = control(
        z_t, t, encoder_hidden_states=p, controlnet_cond=condition, return_dict=False
    )
    out = unet(
        z_t,
        t,
        encoder_hidden_states=p,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    )
    return cast(Tensor, out.sample)


def split_first_convolution(weights: Mapping[str, Tensor], channels: int) -> dict[str, Tensor]:
    """Weights of a control branch with a wide first convolution, as `build_control` names them.

    Args:
        weights: in diffusers' names; those whose first convolution has `channels` are returned as
            they are.
        channels: c; the first c input channels see z_t, the others the condition.

    Raises:
        WeightsError: there is no first convolution, or it is too narrow.
    """
    first = weights.get(_FIRST)
    if first is None or first.dim() != 4 or first.shape[1] < channels:
        raise WeightsError(
            f"the weights are no control branch: {_FIRST} is missing or sees less than "
            f"{channels} channels"
        )
    if first.shape[1] == channels:
        return dict(weights)
    split = {_FIRST: first[:, :channels], f"{_HINT}.weight": first[:, channels:]}
    # one bias serves both
    return {**weights, **split, f"{_HINT}.bias": torch.zeros(len(first))}
