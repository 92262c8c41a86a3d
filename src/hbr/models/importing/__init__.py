"""Converting weights in other formats to model files of hbr.

Reading never runs code: files are safetensors, or read with `torch.load(weights_only=True)`.
Nothing is skipped silently: a key that is missing, unexpected or of the wrong shape is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast, get_args

import torch

from hbr.config import ConfigError
from hbr.errors import ExitCode, HbrError
from hbr.models.checkpoint import Checkpoint, empty, save_checkpoint
from hbr.models.files import require_one_step
from hbr.models.importing.adapters import import_lora
from hbr.models.importing.base import EXPORTED, load_base, load_diffusers_base, read_part
from hbr.models.importing.osediff import import_osediff, with_template
from hbr.models.importing.ram import import_ram, put_into, save_image_encoder
from hbr.models.importing.reading import check_finite, describe_size, published
from hbr.models.importing.recognition import lora_of_another_method, must_be, recognise
from hbr.models.importing.swinir import import_swinir
from hbr.models.importing.tagger import put_into_base
from hbr.models.part_files import with_part
from hbr.weights import WeightsError

ImportKind = Literal["osediff", "ram", "tagger", "lora", "diffusers", "unet", "vae", "swinir"]
KINDS: tuple[str, ...] = get_args(ImportKind)

__all__ = [
    "KINDS",
    "ArgumentError",
    "ImportKind",
    "import_weights",
    "load_base",
    "load_diffusers_base",
    "recognise",
]


class ArgumentError(HbrError, ValueError):
    """Arguments that cannot be combined; the message says what the kind takes."""

    exit_code = ExitCode.USAGE
    http_status = 422


def import_weights(
    source: str | Path,
    kind: ImportKind | Literal["auto"],
    out: str | Path,
    *,
    base: str | Path | None = None,
    prompt: str | None = None,
    prompt_file: str | Path | None = None,
    dape: str | Path | None = None,
    alpha: float | None = None,
    template: str | None = None,
    timestep: int | None = None,
    dtype: torch.dtype = torch.float32,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Convert weights in another format to a model file.

    Args:
        source: the file, or the folder for "diffusers".
        kind: "osediff": a published OSEDiff checkpoint, merged into `base`. "lora": a LoRA in
            safetensors, merged into `base`. "diffusers": a Stable Diffusion 2.1-base folder as it
            is, with an untrained one step; a folder written by `export` is restored exactly.
            "ram": a published RAM checkpoint; with `base` its image encoder in a restorer, without
            `base` a file of the encoder alone. "tagger": the same file, whose tagger then prompts
            the U-Net of the folder `base`; an OSEDiff checkpoint can be merged into the result.
            "unet", "vae": all weights of one network, in diffusers' naming, in place of the base's.
            "swinir": a SwinIR (`nearest+conv`). "auto": what `recognise` identifies.
        out: ends in `.safetensors`; written atomically.
        base: a diffusers folder, or a model file of hbr.
        prompt: the text of the fixed prompt of a base folder; None is the empty text, that is the
            null prompt. The published OSEDiff prompts with the tags of each image; for that, `base`
            must be a model file made with "tagger".
        prompt_file: a prompt extractor written by `export`, which replaces the base's.
        dape: LoRA of SeeSR's DAPE, merged into a tagger.
        alpha: α of a LoRA, in place of what the file and its folder state.
        template: the text around the `{tags}` of an image. None keeps the base's; OSEDiff gets that
            of its test script, "{tags}, ,".
        timestep: at which the one step starts, for weights trained at another than the base's.
        dtype: of the weights in the file.
        report: called with each line of progress.

    Returns:
        `out`.

    Raises:
        WeightsError: something is missing, damaged, unsafe or incompatible.
        ArgumentError: `base` or `prompt` is given where the kind takes none, or missing where it
            needs one.
    """
    source, out = Path(source), Path(out)
    base, prompt_file, dape = _path(base), _path(prompt_file), _path(dape)
    if kind == "auto":
        kind = _recognised(source, report)
    _check_arguments(kind, out, base, prompt, prompt_file)
    _check_loras(kind, dape, alpha, timestep)
    _check_source(source, kind)
    report(f"reading {source} ({describe_size(source)})")
    try:
        if kind == "ram" and base is None:
            encoder = import_ram(source, report)
            check_finite(encoder[1], source)
            return save_image_encoder(out, *encoder, source=source, dtype=dtype)
        checkpoint = _import(source, kind, base, prompt, dape, alpha, report)
        check_finite(checkpoint.tensors, source)
    except WeightsError as error:
        raise must_be(kind, source, error) from None
    guessed = kind == "lora" and _is_untrained(base)
    checkpoint = _starting_at(timestep, checkpoint, report, source if guessed else None)
    checkpoint = _prompted(checkpoint, prompt_file, template, report)
    report(f"writing {out}")
    path = save_checkpoint(
        out, checkpoint.config, checkpoint.tensors, dtype=dtype, card=checkpoint.card
    )
    report(f"wrote {path} ({describe_size(path)})")
    return path


def _prompted(
    checkpoint: Checkpoint,
    prompt_file: Path | None,
    template: str | None,
    report: Callable[[str], None],
) -> Checkpoint:
    """The checkpoint with another prompt extractor, or another text around its tags."""
    if prompt_file is not None:
        report(f"taking the prompt from {prompt_file}")
        checkpoint = with_part(checkpoint, prompt_file, "prompt")
    return checkpoint if template is None else with_template(checkpoint, template)


def _recognised(source: Path, report: Callable[[str], None]) -> ImportKind:
    found = recognise(source)
    if found.kind is None:
        raise WeightsError(found.report)
    report(found.report)
    return cast(ImportKind, found.kind)


def _import(
    source: Path,
    kind: ImportKind,
    base: Path | None,
    prompt: str | None,
    dape: Path | None,
    alpha: float | None,
    report: Callable[[str], None],
) -> Checkpoint:
    if kind == "diffusers":
        return load_base(source, prompt, report)
    if kind == "swinir":
        return import_swinir(source, report)
    assert base is not None
    if kind == "tagger":
        return put_into_base(base, source, dape, report)
    encoder = import_ram(source, report) if kind == "ram" else None
    report(f"reading the base {base} ({describe_size(base)})")
    if encoder is not None:
        return put_into(base, *encoder, source, report)
    onto = load_base(base, prompt, report)
    match kind:
        case "osediff":
            return import_osediff(source, onto, report)
        case "lora":
            return import_lora(source, onto, report, alpha)
    part = "unet" if kind == "unet" else "autoencoder"
    report(f"replacing the weights of the {part}")
    read = read_part(empty(onto.config).get_submodule(part), source)
    named = {f"{part}.{name}": tensor for name, tensor in read.items()}
    card = published(onto.card, source, part)
    return Checkpoint(onto.config, {**onto.tensors, **named}, card)


def _check_arguments(
    kind: str, out: Path, base: Path | None, prompt: str | None, prompt_file: Path | None
) -> None:
    if kind not in KINDS:
        raise ArgumentError(f"the kind is {kind!r}; it may be one of {', '.join(KINDS)}")
    if out.suffix != ".safetensors":
        raise ArgumentError(f"the output is {out}; its name must end in .safetensors")
    if kind in ("osediff", "lora", "unet", "vae") and base is None:
        raise ArgumentError(
            f"--kind {kind} needs --base: a diffusers folder or a model file of hbr"
        )
    if kind == "tagger" and (base is None or not base.is_dir()):
        raise ArgumentError("--kind tagger needs --base: a diffusers folder, with a text encoder")
    if kind in ("diffusers", "swinir") and base is not None:
        raise ArgumentError(f"--kind {kind} takes no --base: it is whole")
    from_folder = kind == "diffusers" or (base is not None and base.is_dir())
    if prompt is not None and (kind in ("ram", "tagger") or not from_folder):
        raise ArgumentError("--prompt needs the text encoder of a diffusers folder")
    if prompt_file is not None and (kind in ("ram", "tagger") or prompt is not None):
        raise ArgumentError(
            f"--prompt-file is the whole prompt: it goes with no --prompt and no --kind {kind}"
        )


def _check_source(source: Path, kind: str) -> None:
    if not source.exists():
        raise WeightsError(f"{source}: there is no such file")
    if kind == "lora" and (line := lora_of_another_method(source)):
        raise WeightsError(line)


def _starting_at(
    timestep: int | None,
    checkpoint: Checkpoint,
    report: Callable[[str], None],
    guessed_for: Path | None,
) -> Checkpoint:
    """The checkpoint with its one step at `timestep`; else a warning if none is stated anywhere."""
    if timestep is None and guessed_for is None:
        return checkpoint
    config = require_one_step(checkpoint.config, "the base")
    if timestep is None:
        report(
            f"warning: {guessed_for} does not state at which timestep its one step starts; t = "
            f"{config.timestep} is taken (--timestep states another)"
        )
        return checkpoint
    try:
        return replace(checkpoint, config=replace(config, timestep=timestep))
    except ConfigError as error:
        raise ArgumentError(f"--timestep: {error}") from None


def _is_untrained(base: Path | None) -> bool:
    """Whether the base is a folder that says nothing of one step."""
    return base is not None and base.is_dir() and not (base / EXPORTED).is_file()


def _path(place: str | Path | None) -> Path | None:
    return None if place is None else Path(place)


def _check_loras(kind: str, dape: Path | None, alpha: float | None, timestep: int | None) -> None:
    if timestep is not None and kind == "ram":
        raise ArgumentError("--timestep is for weights of a one-step model; RAM's have none")
    if dape is not None and kind != "tagger":
        raise ArgumentError("--dape is a LoRA over a tagger: it needs --kind tagger")
    if alpha is not None and kind != "lora":
        raise ArgumentError(f"--alpha is the α of a LoRA; --kind is {kind}")
    if alpha is not None and not math.isfinite(alpha):
        raise ArgumentError(f"--alpha is {alpha}; it must be a finite number")
