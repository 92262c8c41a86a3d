"""The tagger out of RAM's published checkpoint, with SeeSR's DAPE merged in where it is given.

RAM's head is called `tagging_head` and is a BERT of two layers without embeddings and without
self-attention. DAPE is a LoRA written by loralib: rank 8 on the queries and values of every Swin
block, and on the queries and keys with which the tags look at the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hbr.config import ConfigError
from hbr.models.checkpoint import check_weights
from hbr.models.config import ImageEncoderConfig, TaggerConfig
from hbr.models.files import WeightsError
from hbr.models.importing.ram import read_ram, read_swin
from hbr.models.importing.reading import load_pickle, require_tensors
from hbr.models.kept_text import as_bytes
from hbr.models.tagger import Tagger, write_list

TAG_LIST = "ram_tag_list.txt"
THRESHOLDS = "ram_tag_list_threshold.txt"
THRESHOLD = 0.68
"""Of every tag, where no file says another."""

_LAYER = re.compile(r"tagging_head\.encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_INSIDE = {
    "crossattention.self.query": "query",
    "crossattention.self.key": "key",
    "crossattention.self.value": "value",
    "crossattention.output.dense": "attended.dense",
    "crossattention.output.LayerNorm": "attended.LayerNorm",
    "intermediate.dense": "intermediate.dense",
    "output.dense": "output.dense",
    "output.LayerNorm": "output.LayerNorm",
}
_BESIDE = ("label_embed", "wordvec_proj.", "fc.")
# what describes images in sentences
_OTHER = ("tag_encoder.", "text_decoder.")
# loralib's default, which the published code runs with; the file does not hold it
_ALPHA = 1.0


def import_tagger(
    source: Path,
    *,
    dape: Path | None = None,
    tags: Path | None = None,
    thresholds: Path | None = None,
    heads: int = TaggerConfig.heads,
    report: Callable[[str], None] = lambda line: None,
) -> tuple[TaggerConfig, dict[str, Tensor]]:
    """The tagger of a published RAM checkpoint.

    Args:
        source: the `.pth`.
        dape: the `.pth` of SeeSR's DAPE, merged into it.
        tags: names, a line each; None is `ram_tag_list.txt` beside `source`.
        thresholds: numbers in [0, 1], a line each; None is `ram_tag_list_threshold.txt` beside
            `source`, or 0.68 for all if there is none.
        heads: of the layers in which the tags look at the image, which the file does not say.
        report: called with a line of progress at a time.

    Returns:
        Its configuration, read off the weights, and its weights as `Tagger` names them.

    Raises:
        WeightsError: a file is missing, unsafe or damaged, or does not fit the others.
    """
    tensors = read_ram(source)
    encoder, swin = read_swin(tensors, source)
    found = {f"encoder.{name}": tensor for name, tensor in swin.items()}
    found |= _read_head(tensors)
    config = _read_config(found, encoder, heads, source)
    with torch.device("meta"):
        wanted = {name: tuple(t.shape) for name, t in Tagger(config).state_dict().items()}
    del wanted["list.data"]
    check_weights(wanted, {name: tuple(t.shape) for name, t in found.items()}, source)
    if left_out := sorted({n.partition(".")[0] for n in tensors if n.startswith(_OTHER)}):
        report(f"left out, as the tagger does not need it: {', '.join(left_out)}")
    if dape is not None:
        _merge(found, dape, report)
    found["list.data"] = as_bytes(_read_list(source, tags, thresholds, config.n_tags, report))
    return config, found


def _read_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but the image encoder, named as ours; what is not known keeps its name."""
    head = {}
    for name, tensor in tensors.items():
        if name.startswith(("visual_encoder.", "image_proj.", *_OTHER)):
            continue
        layer = _LAYER.fullmatch(name)
        if layer and layer[2] in _INSIDE:
            name = f"layers.{layer[1]}.{_INSIDE[layer[2]]}.{layer[3]}"
        head[name] = tensor
    return head


def _read_config(
    tensors: Mapping[str, Tensor], encoder: ImageEncoderConfig, heads: int, source: Path
) -> TaggerConfig:
    sizes = []
    for name in ("label_embed", "wordvec_proj.weight", "layers.0.intermediate.dense.weight"):
        if name not in tensors:
            raise WeightsError(f"{source} has no tagger: the weight {name} is missing")
        sizes.append(len(tensors[name]))
    n_tags, width, mlp_width = sizes
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    try:
        return TaggerConfig(encoder, n_tags, width, mlp_width, heads, len(layers))
    except ConfigError as error:
        raise WeightsError(f"{source}: {error}") from None


def _merge(tensors: dict[str, Tensor], dape: Path, report: Callable[[str], None]) -> None:
    """Add the LoRA to the weights that it is for: W + α/r · B A."""
    lora = require_tensors(load_pickle(dape), str(dape))
    ours = {name: tensor for name, tensor in lora.items() if not name.startswith(_OTHER)}
    layers = {name.rpartition(".lora_")[0] for name in ours}
    if not layers or "" in layers:
        name = next((n for n in ours if ".lora_" not in n), "")
        raise WeightsError(
            f"{dape} is no LoRA of DAPE" + (f": {name} is not known" if name else "")
        )
    for layer in sorted(layers):
        try:
            a, b = (ours.pop(f"{layer}.lora_{matrix}").float() for matrix in "AB")
        except KeyError as missing:
            raise WeightsError(f"{dape}: the weight {missing.args[0]} is missing") from None
        for name, down, up in _parts(layer, a, b, dape):
            weight = tensors.get(name)
            if weight is None:
                raise WeightsError(
                    f"{dape}: the LoRA is for a layer that RAM does not have: {layer}"
                )
            if (len(up), down.shape[1]) != tuple(weight.shape):
                sizes = f"{tuple(a.shape)} and {tuple(b.shape)}"
                raise WeightsError(f"{dape}: {layer} has {sizes}; RAM has {tuple(weight.shape)}")
            tensors[name] = weight + _ALPHA / len(down) * up @ down
    if ours:
        raise WeightsError(f"{dape}: {next(iter(ours))} is not known")
    report(f"merging DAPE's LoRA on {len(layers)} layers")


def _parts(layer: str, a: Tensor, b: Tensor, dape: Path) -> list[tuple[str, Tensor, Tensor]]:
    """Our weight, A and B of each matrix that a LoRA is for; on `qkv` these are q and v."""
    if a.dim() != 2 or b.dim() != 2:
        raise WeightsError(f"{dape}: the LoRA of {layer} is no pair of matrices")
    if head := _LAYER.fullmatch(f"{layer}.weight"):
        inside = _INSIDE.get(head[2], head[2])
        return [(f"layers.{head[1]}.{inside}.weight", a, b)]
    block = re.fullmatch(r"visual_encoder\.(layers\.\d+\.blocks\.\d+)\.attn\.qkv", layer)
    if block is None or len(a) != 2 * b.shape[1] or len(b) % 2:
        raise WeightsError(f"{dape}: the LoRA of {layer} is not known in a DAPE")
    names = (f"encoder.swin.encoder.{block[1]}.attention.{x}_proj.weight" for x in "qv")
    return list(zip(names, a.chunk(2), b.chunk(2), strict=True))


def _read_list(
    source: Path,
    tags: Path | None,
    thresholds: Path | None,
    count: int,
    report: Callable[[str], None],
) -> str:
    beside = source.with_name(THRESHOLDS)
    names = _read_lines(tags or source.with_name(TAG_LIST), count)
    if thresholds is None and not beside.is_file():
        report(f"no {THRESHOLDS}: every tag counts above {THRESHOLD}")
        return write_list(names, [THRESHOLD] * count)
    file = thresholds or beside
    try:
        return write_list(names, [float(line) for line in _read_lines(file, count)])
    except ValueError as error:
        raise WeightsError(f"{file}: {error}") from None


def _read_lines(file: Path, count: int) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{file}: {getattr(error, 'strerror', None) or error}; it comes with RAM "
            "(`hbr models fetch ram-swin-l`)"
        ) from None
    if len(lines) != count:
        raise WeightsError(f"{file} has {len(lines)} lines; the tagger knows {count} tags")
    return lines
