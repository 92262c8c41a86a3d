"""Weights of other formats become one safetensors file of hbr, through one door.

Nothing that is read here can run code: safetensors, or `torch.load(weights_only=True)`. Nothing is
skipped silently: a key that is missing, left over or of another shape is an error that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch

from hbr.models.checkpoint import Checkpoint, save_checkpoint
from hbr.models.files import WeightsError
from hbr.models.importing.adapters import import_lora
from hbr.models.importing.base import load_base, load_diffusers_base
from hbr.models.importing.osediff import import_osediff
from hbr.models.importing.ram import (
    import_ram,
    load_image_encoder,
    put_into,
    save_image_encoder,
)
from hbr.models.importing.reading import describe_size

Kind = Literal["osediff", "ram", "lora", "diffusers"]
KINDS: tuple[str, ...] = get_args(Kind)

__all__ = [
    "KINDS",
    "ArgumentError",
    "Kind",
    "import_weights",
    "load_base",
    "load_diffusers_base",
    "load_image_encoder",
]


class ArgumentError(ValueError):
    """Arguments that do not go together; the message says what the kind takes."""


def import_weights(
    source: str | Path,
    kind: Kind,
    out: str | Path,
    *,
    base: str | Path | None = None,
    prompt: str | None = None,
    dtype: torch.dtype = torch.float32,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the hbr file of weights in another format.

    Args:
        source: the file, or the folder for "diffusers".
        kind: "osediff": a published OSEDiff checkpoint, merged into `base`. "lora": a LoRA in
            safetensors, merged into `base`. "diffusers": a Stable Diffusion 2.1-base folder as it
            is; its one step is untrained. "ram": a published RAM checkpoint; with `base` its image
            encoder in a restorer, without `base` a file of the encoder alone.
        out: ends in `.safetensors`; replaced only by a whole new file.
        base: a diffusers folder, or a model file of hbr.
        prompt: the text behind the fixed prompt of a base folder; empty when None. The published
            OSEDiff prompts with the tags that a tagger gives each image; one text for all images
            stands in their place, and the empty one is what a null prompt is.
        dtype: of the weights in the file.
        report: called with a line of progress at a time.

    Returns:
        `out`.

    Raises:
        WeightsError: something is missing, damaged, unsafe, or does not fit.
        ArgumentError: `base` or `prompt` where the kind takes none, or none where it needs one.
    """
    source, out = Path(source), Path(out)
    base = None if base is None else Path(base)
    _check_arguments(kind, out, base, prompt)
    if not source.exists():
        raise WeightsError(f"{source}: there is no such file")
    report(f"reading {source} ({describe_size(source)})")
    if kind == "ram":
        if base is None:
            return save_image_encoder(out, *import_ram(source, report), source=source, dtype=dtype)
        checkpoint = _into_restorer(source, base, report)
    elif kind == "diffusers":
        checkpoint = load_base(source, prompt, report)
    else:
        assert base is not None
        report(f"reading the base {base} ({describe_size(base)})")
        merged_into = load_base(base, prompt, report)
        importer = import_osediff if kind == "osediff" else import_lora
        checkpoint = importer(source, merged_into, report)
    report(f"writing {out}")
    path = save_checkpoint(
        out, checkpoint.config, checkpoint.tensors, dtype=dtype, card=checkpoint.card
    )
    report(f"wrote {path} ({describe_size(path)})")
    return path


def _check_arguments(kind: str, out: Path, base: Path | None, prompt: str | None) -> None:
    if kind not in KINDS:
        raise ArgumentError(f"the kind is {kind!r}; it may be one of {', '.join(KINDS)}")
    if out.suffix != ".safetensors":
        raise ArgumentError(f"the output is {out}; its name must end in .safetensors")
    if kind in ("osediff", "lora") and base is None:
        raise ArgumentError(
            f"--kind {kind} needs --base: a diffusers folder or a model file of hbr"
        )
    if kind == "diffusers" and base is not None:
        raise ArgumentError("--kind diffusers takes no --base: the folder is the base")
    from_folder = kind == "diffusers" or (base is not None and base.is_dir())
    if prompt is not None and (kind == "ram" or not from_folder):
        raise ArgumentError("--prompt needs the text encoder of a diffusers folder")


def _into_restorer(source: Path, base: Path, report: Callable[[str], None]) -> Checkpoint:
    config, tensors = import_ram(source, report)
    report(f"reading the base {base} ({describe_size(base)})")
    return put_into(base, config, tensors, source, report)
