"""Networks of other projects at toy size, as their files name the weights."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

Names = dict[str, str]

# One block of the network of ESRGAN (Wang et al. 2018, Fig. 4), written anew, under names that
# weights can be saved by: those of Real-ESRGAN and those of BSRGAN.
REAL_ESRGAN = {"first": "conv_first", "dense": "body.0.rdb{}.conv{}", "trunk": "conv_body"} | {
    "up1": "conv_up1",
    "up2": "conv_up2",
    "hr": "conv_hr",
    "last": "conv_last",
}
BSRGAN = {"first": "conv_first", "dense": "RRDB_trunk.0.RDB{}.conv{}", "trunk": "trunk_conv"} | {
    "up1": "upconv1",
    "up2": "upconv2",
    "hr": "HRconv",
    "last": "conv_last",
}


def rrdb_weights(names: Names, width: int = 16, colours: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    grown = 32  # spandrel takes no other
    shapes = {names["first"]: (width, colours), names["last"]: (colours, width)}
    shapes |= {names[part]: (width, width) for part in ("trunk", "up1", "up2", "hr")}
    for block in (1, 2, 3):
        for layer in range(1, 6):
            made = width if layer == 5 else grown
            shapes[names["dense"].format(block, layer)] = (made, width + (layer - 1) * grown)
    weights = {}
    for name, (outputs, inputs) in shapes.items():
        weight = torch.randn(outputs, inputs, 3, 3, generator=generator)
        weights[f"{name}.weight"] = weight * (1 / (9 * inputs)) ** 0.5
        weights[f"{name}.bias"] = torch.rand(outputs, generator=generator) * 0.2
    return weights


def rrdb(x: Tensor, weights: dict[str, Tensor], names: Names) -> Tensor:
    def conv(name: str, z: Tensor) -> Tensor:
        return functional.conv2d(z, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1)

    def active(z: Tensor) -> Tensor:
        return functional.leaky_relu(z, 0.2)

    def twice(z: Tensor) -> Tensor:
        return functional.interpolate(z, scale_factor=2, mode="nearest")

    first = conv(names["first"], x)
    block = first
    for number in (1, 2, 3):
        seen = [block]
        for layer in range(1, 5):
            name = names["dense"].format(number, layer)
            seen.append(active(conv(name, torch.cat(seen, 1))))
        block = block + 0.2 * conv(names["dense"].format(number, 5), torch.cat(seen, 1))
    z = first + conv(names["trunk"], first + 0.2 * block)
    z = active(conv(names["up1"], twice(z)))
    z = active(conv(names["up2"], twice(z)))
    return conv(names["last"], active(conv(names["hr"], z)))


def toy(name: str, **settings: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import importlib

        torch.manual_seed(0)
        module = importlib.import_module(f"spandrel.architectures.{name}")
        cls = getattr(module, settings.pop("cls", name), None) or getattr(module, name)
        return cls(**settings).eval()  # type: ignore[no-any-return]

    return make


SWIN = {"embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2], "window_size": 8, "mlp_ratio": 2.0}
ARCHITECTURES = {
    "SwinIR-GAN": (
        toy("SwinIR", img_size=64, upscale=4, upsampler="nearest+conv", **SWIN),
        4,
        "SwinIR",
    ),
    "SwinIR": (
        toy("SwinIR", img_size=48, upscale=2, upsampler="pixelshuffle", **SWIN),
        2,
        "SwinIR",
    ),
    "Swin2SR": (
        toy("Swin2SR", img_size=64, upscale=2, upsampler="pixelshuffle", **SWIN),
        2,
        "Swin2SR",
    ),
    "Real-ESRGAN general v3": (
        toy("Compact", cls="SRVGGNetCompact", num_feat=16, num_conv=3, upscale=4),
        4,
        "RealESRGAN Compact",
    ),
    "SCUNet": (toy("SCUNet", config=[1, 1, 1, 1, 1, 1, 1], dim=64), 1, "SCUNet"),
    "NAFNet": (
        toy(
            "NAFNet",
            width=8,
            middle_blk_num=1,
            enc_blk_nums=[1, 1],
            dec_blk_nums=[1, 1],
        ),
        1,
        "NAFNet",
    ),
    "HAT": (
        toy(
            "HAT",
            img_size=64,
            window_size=16,
            embed_dim=12,
            depths=[1, 1],
            num_heads=[2, 2],
            upscale=2,
            upsampler="pixelshuffle",
            compress_ratio=3,
            squeeze_factor=6,
        ),
        2,
        "HAT",
    ),
    "DAT": (
        toy(
            "DAT",
            img_size=64,
            embed_dim=32,
            split_size=[8, 8],
            depth=[2],
            num_heads=[2],
            expansion_factor=2,
            upscale=2,
        ),
        2,
        "DAT",
    ),
    "SPAN": (
        toy("SPAN", num_in_ch=3, num_out_ch=3, feature_channels=16, upscale=2),
        2,
        "SPAN",
    ),
    "RealCUGAN": (
        toy("RealCUGAN", cls="UpCunet2x", in_channels=3, out_channels=3),
        2,
        "RealCUGAN",
    ),
}


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["EVIL"],)
