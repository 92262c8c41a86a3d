"""A one-step restorer of Stable Diffusion 2.1 size with random weights, for benchmarks."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hbr.models import OneStepRestorer, RestorerConfig
from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.models.checkpoint import assemble, empty
from hbr.models.config import HFIEConfig, ImageEncoderConfig, UNetConfig
from hbr.models.files import Header


def small() -> RestorerConfig:
    """The same network at toy width, to try this file."""
    encoder = ImageEncoderConfig(image_size=96, embed_dim=16, depths=(2, 2), num_heads=(2, 2))
    return RestorerConfig(
        autoencoder=AutoencoderConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1),
        unet=replace(
            UNetConfig(), block_out_channels=(32, 32, 32, 32), attention_head_dim=(1,) * 4
        ),
        prompt=HFIEConfig(encoder=replace(encoder, window_size=12)),
    )


def build(config: RestorerConfig, dtype: torch.dtype = torch.bfloat16) -> OneStepRestorer:
    """A restorer with random weights that never were in another precision."""
    shapes = {name: tuple(t.shape) for name, t in empty(config).state_dict().items()}
    header = Header(config=config, shapes=shapes, card={})
    weights = _random(shapes, dtype)
    return assemble(header, weights, "random weights", "cpu", dtype, torch.channels_last)


def _random(shapes: dict[str, tuple[int, ...]], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    torch.manual_seed(0)
    for name, shape in shapes.items():
        tensor = torch.empty(shape, dtype=dtype)
        if len(shape) > 1:
            bound = tensor[0].numel() ** -0.5  # keeps activations finite
            tensor.uniform_(-bound, bound)
        else:
            tensor.fill_(1.0 if name.endswith("weight") else 0.0)
        yield name, tensor


def parts_of(model: Any, image: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The whole of a model, and its parts with what those before give them."""
    with torch.inference_mode():
        p = model.prompt(image)
        z = model.encode(image)
        z_h = model.denoise(z, p)
    return {
        "whole": lambda: model(image),
        "prompt": lambda: model.prompt(image),
        "encode": lambda: model.encode(image),
        "denoise": lambda: model.denoise(z, p),
        "decode": lambda: model.decode(z_h),
    }
