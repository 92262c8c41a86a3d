"""Exporting the LoRA of a training or of a published OSEDiff checkpoint."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from hbr.models.checkpoint import Checkpoint, read_checkpoint
from hbr.models.exporting.adapters import PARTS, WHOLE, Adapter, write_lora
from hbr.models.files import is_model_format, read_metadata, under
from hbr.models.importing.base import PROMPT_FILE
from hbr.models.importing.lora_settings import rank_of, read_settings
from hbr.models.importing.osediff import ALPHA, TRAINED, is_osediff
from hbr.models.importing.reading import load_pickle, load_safetensors, require_tensors
from hbr.models.part_files import write_part
from hbr.weights import WeightsError

LORA_FILE = "lora.safetensors"
"""The file that a training with adapters writes beside its model file."""

_KEY = re.compile(r"(?P<layer>.+)\.lora_(?P<matrix>[AB])(\.[^.]+)?\.weight")
_OURS = re.compile(
    rf"(unet|vae)\..+\.lora_[AB]\.weight|{re.escape(WHOLE)}(unet|vae)\..+\.(weight|bias)"
)


def export_lora(
    source: Path,
    out: Path,
    *,
    vae: bool = True,
    prompt: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write a LoRA file for diffusers, peft and `hbr models import`.

    Args:
        source: the folder of a training with adapters, its `lora.safetensors`, or the model file
            beside it; or a published OSEDiff checkpoint (`.pkl`).
        out: ends in `.safetensors`; written atomically.
        vae: include the adapters of the autoencoder's encoder.
        prompt: also write the prompt extractor, as `prompt.safetensors`: it is not part of a LoRA.
        report: called with each line of progress.

    Returns:
        the files that were written.

    Raises:
        WeightsError: there are no adapters, `prompt` is set and there is no model file, or a file
            to write is one that is read.
    """
    file, model = (source, None) if source.suffix == ".pkl" else _find(source)
    if model is None:
        parts, card = _of_osediff(source), {"base": "sd-2.1-base"}
    else:
        parts, card = _of_training(file)
    read = {p.resolve() for p in (file, model) if p is not None}
    for made in (out, out.with_name(PROMPT_FILE)) if prompt else (out,):
        if made.resolve() in read:
            raise WeightsError(f"{made} is the file to export; name another one")
    if not vae:
        parts.pop("autoencoder", None)
    checkpoint = _with_prompt(source, model, out) if prompt else None
    written = [write_lora(out, parts, card)]
    for part, adapter in parts.items():
        report(f"{part}: {len(adapter.a)} layers")
        for name in adapter.whole:
            report(
                f"{part}: {name} was trained itself; the file has it as "
                f"{WHOLE}{PARTS[part]}.{name}, which hbr models import uses and diffusers does not"
            )
    if checkpoint is not None:
        written.append(write_part(out.with_name(PROMPT_FILE), checkpoint, "prompt"))
    elif model is not None:
        report(
            "the prompt extractor is not part of a LoRA and was left out; --prompt writes it too"
        )
    return written


def _with_prompt(source: Path, model: Path | None, out: Path) -> Checkpoint:
    """The model whose prompt extractor is written beside `out`."""
    if out.name == PROMPT_FILE:
        raise WeightsError(f"{out} is where the prompt extractor goes; name another file")
    if model is None or not model.is_file():
        raise WeightsError(
            f"{source} has no model file beside it, which the prompt would come from"
        )
    return read_checkpoint(model)


def _find(source: Path) -> tuple[Path, Path]:
    """The LoRA file and the model file beside it, given any output of a training."""
    if source.is_dir():
        file = source / LORA_FILE
    else:
        metadata, _ = read_metadata(source)
        if "lora_adapter_metadata" in metadata:
            return source, source.with_name("model.safetensors")
        if not is_model_format(metadata.get("format", "")):
            raise WeightsError(f"{source} is neither a model nor a LoRA of hbr")
        file = source.with_name(LORA_FILE)
    if not file.is_file():
        raise WeightsError(
            f"{source} has no {LORA_FILE} beside it: in a model file adapters are merged. "
            "`hbr train` writes it if the objective has `lora`; --as diffusers exports the model"
        )
    return file, source / "model.safetensors" if source.is_dir() else source


def _of_training(file: Path) -> tuple[dict[str, Adapter], dict[str, str]]:
    tensors, metadata = load_safetensors(file)
    if unknown := [name for name in tensors if not _OURS.fullmatch(name)]:
        raise WeightsError(f"{file}: {unknown[0]} is not part of a LoRA of hbr")
    parts, (settings, _) = {}, read_settings(file, metadata)
    for part, name in PARTS.items():
        if own := under(f"{name}.", tensors):
            whole = under(f"{WHOLE}{name}.", tensors)
            parts[part] = _adapter(own, whole, settings[part].scale, file)
    card = {n: v for n, v in metadata.items() if n not in ("format", "lora_adapter_metadata")}
    return parts, card


def _of_osediff(source: Path) -> dict[str, Adapter]:
    values = load_pickle(source)
    if not is_osediff(values):
        raise WeightsError(f"{source} is not an OSEDiff checkpoint")
    parts = {}
    for part, key in (("unet", "state_dict_unet"), ("autoencoder", "state_dict_vae")):
        tensors = require_tensors(values[key], f"{source}: {key}")
        whole = {n.replace(".base_layer", ""): tensors[n] for n in TRAINED if n in tensors}
        parts[part] = _adapter(tensors, whole, lambda _, rank: ALPHA / rank, source)
    return parts


def _adapter(
    tensors: Mapping[str, Tensor],
    whole: Mapping[str, Tensor],
    scale: Callable[[str, int], float],
    source: Path,
) -> Adapter:
    """The LoRA of one network; `scale` gives the factor of B A by layer and rank."""
    matrices: dict[str, dict[str, Tensor]] = {"A": {}, "B": {}}
    for name, tensor in tensors.items():
        if found := _KEY.fullmatch(name):
            matrices[found["matrix"]][found["layer"]] = tensor
    a, b = matrices["A"], matrices["B"]
    if lonely := sorted(a.keys() ^ b.keys()):
        raise WeightsError(f"{source}: {lonely[0]} lacks a matrix of its LoRA")
    scaled = {layer: b[layer] * scale(layer, rank_of(a[layer], layer, source)) for layer in a}
    return Adapter(a, scaled, whole)
