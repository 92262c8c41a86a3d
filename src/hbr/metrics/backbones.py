"""The convolutions of VGG-16 and AlexNet, with the names of torchvision's state dicts.

Shapes: b batch, c channels, h w pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from hbr.metrics.base import MetricError

Net = Literal["vgg", "alex"]

# Simonyan and Zisserman 2015, configuration D: widths; "pool" separates the five stages
_VGG = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool") + (512,) * 3
# Krizhevsky 2014, "one weird trick": (width, kernel, stride, padding)
_ALEX = (
    (64, 11, 4, 2),
    "pool",
    (192, 5, 1, 2),
    "pool",
    (384, 3, 1, 1),
    (256, 3, 1, 1),
    (256, 3, 1, 1),
)


class Backbone(nn.Module):
    """The network up to its last activation; returns the activations that LPIPS and DISTS use.

    Its state dict is torchvision's: `features.{i}.weight` and `.bias`.

    Args:
        net: "vgg": after the last ReLU of each of the five stages, widths 64, 128, 256, 512, 512.
            "alex": after each of the five ReLUs, widths 64, 192, 384, 256, 256.
        pool: builds the layer that replaces max pooling, from the number of channels.
    """

    def __init__(self, net: Net, pool: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        self.net = net
        layers: list[nn.Module] = []
        taps: list[int] = []
        width = 3
        for step in _VGG if net == "vgg" else _ALEX:
            if step == "pool":
                default = nn.MaxPool2d(2) if net == "vgg" else nn.MaxPool2d(3, stride=2)
                layers.append(pool(width) if pool is not None else default)
                continue
            shape = step if isinstance(step, tuple) else (step, 3, 1, 1)
            out, kernel, stride, padding = (int(value) for value in shape)
            layers += [nn.Conv2d(width, out, kernel, stride, padding), nn.ReLU()]
            width = out
            taps.append(len(layers) - 1)
        self.features = nn.Sequential(*layers)
        # of VGG's 13 activations, the last before each pooling and the final one
        self.taps = [t for t in taps if net == "alex" or _is_last(layers, t)]

    @property
    def widths(self) -> list[int]:
        """Channels of each returned activation."""
        convolutions = [self.features[t - 1] for t in self.taps]
        return [c.out_channels for c in convolutions if isinstance(c, nn.Conv2d)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Normalised images [b, 3, h, w] → five [b, c, h', w']."""
        found = []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.taps:
                found.append(x)
        return found

    def load(self, state: Mapping[str, Tensor], path: Path) -> None:
        """Load the convolutions of a classifier's state dict; other entries are ignored.

        Raises:
            MetricError: a weight is missing or has another shape; the message names it and `path`.
        """
        own = {k: v for k, v in self.state_dict().items() if k.endswith((".weight", ".bias"))}
        load_exactly(state, own, path)


def load_exactly(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> None:
    """Fill the `wanted` tensors from `state` by name; all of them, in the right shapes.

    Raises:
        MetricError: one is missing or has another shape.
    """
    for name, tensor in wanted.items():
        if name not in state:
            raise MetricError(f"{path} has no {name}; these are other weights")
        if state[name].shape != tensor.shape:
            raise MetricError(
                f"{path}: {name} is {list(state[name].shape)}; it should be {list(tensor.shape)}"
            )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(state[name])


def _is_last(layers: Sequence[nn.Module], i: int) -> bool:
    return i + 1 == len(layers) or not isinstance(layers[i + 1], nn.Conv2d)
