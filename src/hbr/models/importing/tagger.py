"""The tagger of RAM's or RAM++'s published checkpoint, optionally with SeeSR's DAPE merged in.

RAM++ has 51 texts for each tag in `label_embed`, and a `reweight_scale` with which the image weighs
them. RAM's head is called `tagging_head` and is a BERT of two layers without embeddings and without
self-attention. DAPE is a LoRA written by loralib: rank 8 on the queries and values of every Swin
block, and on the queries and keys with which the tags attend to the image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from hbr.config import to_dict
from hbr.models.checkpoint import Checkpoint, check_weights
from hbr.models.config import DAPEConfig, ImageEncoderConfig, TaggerConfig
from hbr.models.importing.base import UNTRAINED, load_diffusers_base
from hbr.models.importing.ram import read_ram, read_swin
from hbr.models.importing.reading import (
    contents,
    describe_size,
    find_tensors,
    load_pickle,
    made_config,
)
from hbr.models.tagger import Tagger, write_list
from hbr.models.text import load_text_encoder
from hbr.models.text_buffer import as_bytes
from hbr.weights import WeightsError, find_weights

# lists that are published with the code, not with the weights
TAG_LIST = "ram_tag_list.txt"
THRESHOLDS = "ram_tag_list_threshold.txt"
THRESHOLD = 0.68
"""Of every tag, unless a file gives other values."""

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
_DESCRIPTIONS = 51
# for captions
_OTHER = ("tag_encoder.", "text_decoder.")
# loralib's default, which the published code uses; it is not in the file
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
    """The tagger of a published checkpoint of RAM or RAM++.

    Args:
        source: the `.pth`.
        dape: the `.pth` of SeeSR's DAPE, merged into it.
        tags: names, a line each; None is `ram_tag_list.txt` beside `source`, or where
            `hbr fetch ram-tags` puts it.
        thresholds: numbers in [0, 1], a line each; None is `ram_tag_list_threshold.txt` in the
            same places, or 0.68 for all if it is in neither.
        heads: attention heads of the tagging layers, which the file does not say.
        report: called with each line of progress.

    Returns:
        Its configuration, read off the weights, and its weights as `Tagger` names them.

    Raises:
        WeightsError: a file is missing, unsafe or damaged, or does not match the others.
    """
    tensors = read_ram(source)
    encoder, swin = read_swin(tensors, source, report)
    found = {f"encoder.{name}": tensor for name, tensor in swin.items()}
    found |= _read_head(tensors)
    config = _read_config(found, encoder, heads, source)
    with torch.device("meta"):
        wanted = Tagger(config).state_dict()
    del wanted["list.data"]
    check_weights(wanted, found, source)
    if left_out := sorted({n.partition(".")[0] for n in tensors if n.startswith(_OTHER)}):
        report(f"left out, as the tagger does not need it: {', '.join(left_out)}")
    if dape is not None:
        _merge(found, dape, report)
    found["list.data"] = as_bytes(_read_list(source, tags, thresholds, config.n_tags, report))
    return config, found


def put_into_base(
    folder: Path,
    source: Path,
    dape: Path | None,
    report: Callable[[str], None],
    lists: Path | None = None,
) -> Checkpoint:
    """Make a one-step model of a diffusers folder, prompted by the tags of the image.

    Args:
        folder: Stable Diffusion 2.1-base.
        source, dape, report: as for `import_tagger`.
        lists: the folder of the tags and thresholds; None is where `import_tagger` looks for them.

    Raises:
        WeightsError: as for `import_tagger`, or the folder is incomplete or another model.
    """
    tagger, tensors = import_tagger(
        source,
        dape=dape,
        tags=lists and lists / TAG_LIST,
        thresholds=lists and lists / THRESHOLDS,
        report=report,
    )
    report(f"reading the base {folder} ({describe_size(folder)})")
    base = load_diffusers_base(folder)
    text, encoder = load_text_encoder(folder)
    named = {f"tagger.{name}": tensor for name, tensor in tensors.items()}
    named |= {f"text.{name}": tensor for name, tensor in encoder.state_dict().items()}
    made_of = " with ".join(file.name for file in (source, dape) if file is not None)
    card = {"kind": "tagger", "tagger": made_of, "trained": UNTRAINED}
    return base.prompted(folder, DAPEConfig(tagger=tagger, text=text), named, **card)


def _read_head(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All weights but the image encoder's in our naming; unknown ones keep their names."""
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
    n_texts, width, mlp_width = sizes
    descriptions = _DESCRIPTIONS if "reweight_scale" in tensors else 1
    if n_texts % descriptions:
        raise WeightsError(
            f"{source}: label_embed has {n_texts} rows; RAM++ has {descriptions} for each tag"
        )
    layers = {name.split(".")[1] for name in tensors if name.startswith("layers.")}
    fields = {
        "encoder": to_dict(encoder),
        "n_tags": n_texts // descriptions,
        "descriptions": descriptions,
        "width": width,
        "mlp_width": mlp_width,
        "heads": heads,
        "layers": len(layers),
    }
    return made_config(TaggerConfig, fields, source)


def _merge(tensors: dict[str, Tensor], dape: Path, report: Callable[[str], None]) -> None:
    """Merge the LoRA into its weights: W + α/r · B A."""
    values = load_pickle(dape)
    lora = find_tensors(values)
    ours = {name: tensor for name, tensor in lora.items() if not name.startswith(_OTHER)}
    layers = {name.rpartition(".lora_")[0] for name in ours}
    if not layers or "" in layers:
        name = next((n for n in ours if ".lora_" not in n), "")
        detail = f"{name} is not known" if name else contents(values)
        raise WeightsError(f"{dape} is not a LoRA of DAPE: {detail}")
    for layer in sorted(layers):
        try:
            a, b = (ours.pop(f"{layer}.lora_{matrix}").float() for matrix in "AB")
        except KeyError as missing:
            raise WeightsError(f"{dape}: the weight {missing.args[0]} is missing") from None
        for name, down, up in _parts(layer, a, b, dape):
            weight = tensors.get(name)
            if weight is None:
                raise WeightsError(f"{dape}: the LoRA is for {layer}, which RAM does not have")
            if (len(up), down.shape[1]) != tuple(weight.shape):
                sizes = f"{tuple(a.shape)} and {tuple(b.shape)}"
                raise WeightsError(f"{dape}: {layer} has {sizes}; RAM has {tuple(weight.shape)}")
            tensors[name] = weight + _ALPHA / len(down) * up @ down
    if ours:
        raise WeightsError(f"{dape}: {next(iter(ours))} is not known")
    report(f"merging DAPE's LoRA on {len(layers)} layers")


def _parts(layer: str, a: Tensor, b: Tensor, dape: Path) -> list[tuple[str, Tensor, Tensor]]:
    """Our weight, A and B of each matrix of a LoRA; on `qkv` these are q and v."""
    if a.dim() != 2 or b.dim() != 2:
        raise WeightsError(f"{dape}: the LoRA of {layer} is not a pair of matrices")
    if head := _LAYER.fullmatch(f"{layer}.weight"):
        inside = _INSIDE.get(head[2], head[2])
        return [(f"layers.{head[1]}.{inside}.weight", a, b)]
    block = re.fullmatch(r"visual_encoder\.(layers\.\d+\.blocks\.\d+)\.attn\.qkv", layer)
    if block is None or len(a) != 2 * b.shape[1] or len(b) % 2:
        raise WeightsError(f"{dape}: the LoRA of {layer} is not part of a DAPE")
    names = (f"encoder.swin.encoder.{block[1]}.attention.{x}_proj.weight" for x in "qv")
    return list(zip(names, a.chunk(2), b.chunk(2), strict=True))


def _read_list(
    source: Path,
    tags: Path | None,
    thresholds: Path | None,
    count: int,
    report: Callable[[str], None],
) -> str:
    names = _read_lines(tags or _found(source, TAG_LIST), count)
    file = thresholds or _found(source, THRESHOLDS)
    if thresholds is None and not file.is_file():
        report(f"no {THRESHOLDS}: the threshold of every tag is {THRESHOLD}")
        return write_list(names, [THRESHOLD] * count)
    try:
        return write_list(names, [float(line) for line in _read_lines(file, count)])
    except ValueError as error:
        raise WeightsError(f"{file}: {error}") from None


def _found(source: Path, name: str) -> Path:
    """A list beside the checkpoint, or in the folder that it was fetched to."""
    beside = source.with_name(name)
    if not beside.is_file():
        with suppress(WeightsError):
            return find_weights("ram-tags") / name
    return beside


def _read_lines(file: Path, count: int) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{file}: {getattr(error, 'strerror', None) or error}; the tagger needs it "
            "(`hbr fetch ram-tags`)"
        ) from None
    if len(lines) != count:
        raise WeightsError(f"{file} has {len(lines)} lines; the tagger knows {count} tags")
    return lines
