"""Weights of the real shapes that are the same on every machine, and pictures to try them on."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hbr.metrics.backbones import Backbone, Net

NAMES: dict[Net, tuple[str, str]] = {
    "vgg": ("vgg16.tv_in1k.safetensors", "vgg.pth"),
    "alex": ("alexnet.safetensors", "alex.pth"),
}


def spread(shape: torch.Size | tuple[int, ...], seed: int) -> Tensor:
    """Numbers in [-1, 1] that look drawn, by arithmetic alone."""
    count = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return ((torch.sin(count * 12.9898 + 78.233 * seed) * 43758.5453).frac()).float().view(shape)


def features(net: Net) -> dict[str, Tensor]:
    """A state dict as torchvision's vgg16 or alexnet; activations neither vanish nor explode."""
    state = {}
    for i, (name, tensor) in enumerate(Backbone(net).state_dict().items()):
        gain = (6 / tensor[0].numel()) ** 0.5 if name.endswith("weight") else 0.05
        state[name] = spread(tensor.shape, i) * gain
    return state


def linear(net: Net) -> dict[str, Tensor]:
    """The linear layers of LPIPS, none below 0."""
    widths = Backbone(net).widths
    return {f"lin{i}.model.1.weight": spread((1, w, 1, 1), i).abs() for i, w in enumerate(widths)}


def alpha_beta() -> dict[str, Tensor]:
    """The weights of DISTS."""
    return {name: spread((1, 1475, 1, 1), i).abs() for i, name in enumerate(("alpha", "beta"))}


def pictures() -> tuple[Tensor, Tensor]:
    """Two pairs [2, 3, 64, 80] in [0, 1], alike but not the same."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    waves = [torch.sin(x / (3 + c) + y / (7 - c)) * 0.4 + 0.5 for c in range(3)]
    reference = torch.stack([torch.stack(waves), torch.stack(waves[::-1]) * 0.7])
    image = (reference + 0.1 * spread(reference.shape, 5)).clamp(0, 1)
    return image, reference


def write(folder: Path) -> Path:
    """The files of LPIPS and DISTS, named so that the features can be found in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for net, (name, lin) in NAMES.items():
        save_file(features(net), folder / name)
        torch.save(linear(net), folder / lin)
    torch.save(alpha_beta(), folder / "weights.pt")
    return folder
