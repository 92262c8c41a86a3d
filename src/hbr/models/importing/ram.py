"""RAM's published checkpoint: its Swin transformer becomes the image encoder of HFIE.

The checkpoint follows the original Swin, which has one `qkv` layer where transformers has three.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from hbr.config import from_dict
from hbr.models.checkpoint import Checkpoint, check_shapes, check_weights, read_checkpoint
from hbr.models.config import HFIEConfig, ImageEncoderConfig
from hbr.models.files import (
    IMAGE_ENCODER_FORMAT,
    read_config,
    read_metadata,
    read_tensors,
    require_one_step,
    shapes_of,
    write_with_config,
)
from hbr.models.hfie import HFIE, ImageEncoder
from hbr.models.importing.base import load_diffusers_base
from hbr.models.importing.reading import load_weights, made_config, origin
from hbr.weights import WeightsError

# tables that are derived from the sizes
_DERIVED = re.compile(r"\.(attn_mask|relative_position_index)$")
_ENCODER = ("visual_encoder.", "image_proj.")
_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "attn.relative_position_bias_table": "attention.relative_position_bias"
    ".relative_position_bias_table",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_OUTSIDE = {
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "patch_embed.norm": "embeddings.norm",
    "norm": "layernorm",
}


def import_ram(
    source: Path, report: Callable[[str], None]
) -> tuple[ImageEncoderConfig, dict[str, Tensor]]:
    """The image encoder of a published RAM checkpoint.

    Returns:
        Its configuration, read off the weights, and its weights as `ImageEncoder` names them.

    Raises:
        WeightsError: the file is unsafe or damaged, or not a RAM checkpoint with a Swin
            transformer.
    """
    tensors = read_ram(source)
    config, renamed = read_swin(tensors, source, report)
    heads = sorted({name.partition(".")[0] for name in tensors if not name.startswith(_ENCODER)})
    if heads:
        report(f"left out, as HFIE does not need it: {', '.join(heads)}")
    return config, renamed


def read_ram(source: Path) -> dict[str, Tensor]:
    """Read all weights of a published RAM checkpoint under their own names.

    Raises:
        WeightsError: the file is missing, unsafe, damaged, or not a RAM checkpoint.
    """
    # the published code reads the name of its first versions, too
    return {
        re.sub(r"^vision_multi\.", "tagging_head.", name): tensor
        for name, tensor in load_weights(source).items()
    }


def read_swin(
    tensors: Mapping[str, Tensor], source: Path, report: Callable[[str], None]
) -> tuple[ImageEncoderConfig, dict[str, Tensor]]:
    """The image encoder of a RAM: its configuration, and its weights in our naming.

    A file without `attn_mask` does not say how large its images are; one window is then taken to
    cover the image at the last level, as in every published Swin, and the report says so.

    Raises:
        WeightsError: a weight is missing or unknown.
    """
    found = {name: t for name, t in tensors.items() if name.startswith(_ENCODER)}
    config = _read_config(found, source, report)
    renamed = rename_swin(found, source)
    with torch.device("meta"):
        check_weights(ImageEncoder(config).state_dict(), renamed, source)
    return config, renamed


def rename_swin(tensors: Mapping[str, Tensor], source: str | Path) -> dict[str, Tensor]:
    """Rename and split weights of the original Swin as in transformers.

    Raises:
        WeightsError: a name is unknown.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if _DERIVED.search(name):
            continue
        module, _, leaf = name.removeprefix("visual_encoder.").rpartition(".")
        if leaf == "relative_position_bias_table":
            module, leaf = f"{module}.{leaf}", ""
        if found := re.fullmatch(r"layers\.(\d+)\.blocks\.(\d+)\.(.+)", module):
            block = f"swin.encoder.layers.{found[1]}.blocks.{found[2]}"
            if found[3] == "attn.qkv":
                for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                    renamed[f"{block}.attention.{part}_proj.{leaf}"] = piece.contiguous()
                continue
            target = f"{block}.{_BLOCK[found[3]]}" if found[3] in _BLOCK else None
        elif re.fullmatch(r"layers\.\d+\.downsample\.(reduction|norm)", module):
            target = f"swin.encoder.{module}"
        elif module == "image_proj":
            target = module
        else:
            target = f"swin.{_OUTSIDE[module]}" if module in _OUTSIDE else None
        if target is None:
            raise WeightsError(f"{source}: {name} is not a weight of RAM's image encoder")
        renamed[f"{target}.{leaf}".rstrip(".")] = tensor
    return renamed


def _read_config(
    tensors: Mapping[str, Tensor], source: Path, report: Callable[[str], None]
) -> ImageEncoderConfig:
    def shape(name: str, dims: int) -> tuple[int, ...]:
        if name not in tensors:
            raise WeightsError(f"{source}: the weight {name} is missing")
        got = tuple(tensors[name].shape)
        if len(got) != dims:
            raise WeightsError(f"{source}: {name} is {got}; it must have {dims} dimensions")
        return got

    depths: list[int] = []
    while any(n.startswith(f"visual_encoder.layers.{len(depths)}.blocks.0.") for n in tensors):
        blocks = f"visual_encoder.layers.{len(depths)}.blocks."
        depths.append(
            len({n.removeprefix(blocks).partition(".")[0] for n in tensors if n.startswith(blocks)})
        )
    table = "visual_encoder.layers.{}.blocks.0.attn.relative_position_bias_table"
    entries, _ = shape(table.format(0), 2)
    window = (round(entries**0.5) + 1) // 2  # (2w − 1)² entries
    # the windows of the first level give the size of the image
    mask = tensors.get("visual_encoder.layers.0.blocks.1.attn_mask")
    windows = 2 ** (len(depths) - 1) if mask is None else round(mask.shape[0] ** 0.5)
    if mask is None:
        size = windows * window * 4
        report(f"warning: {source} has no attn_mask, which gives the image size; {size} is assumed")
    fields = {
        "image_size": windows * window * 4,
        "embed_dim": shape("visual_encoder.patch_embed.proj.weight", 4)[0],
        "depths": depths,
        "num_heads": [shape(table.format(i), 2)[1] for i in range(len(depths))],
        "window_size": window,
        "proj_dim": shape("image_proj.weight", 2)[0],
    }
    return made_config(ImageEncoderConfig, fields, source)


def save_image_encoder(
    path: Path,
    config: ImageEncoderConfig,
    tensors: Mapping[str, Tensor],
    *,
    source: Path,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a file of an image encoder alone, from which the HFIE of a training can start."""
    plain = {name: t.to(dtype) for name, t in tensors.items()}
    card = origin(source, source, kind="ram")
    return write_with_config(path, IMAGE_ENCODER_FORMAT, config, plain, card)


def read_image_encoder(path: str | Path) -> tuple[ImageEncoderConfig, dict[str, Tensor]]:
    """Read what `save_image_encoder` wrote: the configuration, and the weights in float32.

    Raises:
        WeightsError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    metadata, shapes = read_metadata(path)
    if metadata.get("format") != IMAGE_ENCODER_FORMAT:
        raise WeightsError(f"{path} does not contain an image encoder of hbr")
    config = read_config(path, metadata, partial(from_dict, ImageEncoderConfig))
    with torch.device("meta"):
        check_shapes(shapes_of(ImageEncoder(config).state_dict()), shapes, path)
    return config, {name: t.float().clone() for name, t in read_tensors(path, shapes)}


def put_into(
    base: Path,
    config: ImageEncoderConfig,
    tensors: Mapping[str, Tensor],
    source: Path,
    report: Callable[[str], None],
) -> Checkpoint:
    """Put an image encoder into a one-step model.

    Args:
        base: a model file of hbr whose prompt is HFIE, of which everything else is kept; or a
            diffusers folder, which gets a new HFIE with untrained queries and attention.
        config, tensors: the image encoder.
        source: its file, for the card.
        report: called with each line of progress.

    Raises:
        WeightsError: the base is neither, or its encoder has other sizes.
    """
    if base.is_dir():
        report("a new, untrained HFIE is made with this encoder")
        return _around(base, config, tensors, source)
    checkpoint = read_checkpoint(base)
    prompt = require_one_step(checkpoint.config, base).prompt
    if not isinstance(prompt, HFIEConfig):
        raise WeightsError(f"{base} has another prompt than HFIE, which alone has an image encoder")
    if prompt.encoder != config:
        raise WeightsError(f"{source} is {config}; {base} has {prompt.encoder}")
    named = {f"prompt.encoder.{name}": t for name, t in tensors.items()}
    card = {**checkpoint.card, "image_encoder": source.name}
    return Checkpoint(checkpoint.config, {**checkpoint.tensors, **named}, card)


def _around(
    folder: Path, encoder: ImageEncoderConfig, tensors: Mapping[str, Tensor], source: Path
) -> Checkpoint:
    base = load_diffusers_base(folder)
    width = base.unet.cross_attention_dim
    default = HFIEConfig(encoder=encoder)
    heads = default.heads if width % default.heads == 0 else 1
    prompt = replace(default, width=width, heads=heads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hfie: nn.Module = HFIE(prompt)
    named = {f"encoder.{name}": t for name, t in tensors.items()}
    untrained = "no: the one step and the queries of HFIE are untrained; it restores nothing"
    card = {"kind": "ram", "image_encoder": source.name, "trained": untrained}
    return base.prompted(folder, prompt, {**hfie.state_dict(), **named}, **card)
