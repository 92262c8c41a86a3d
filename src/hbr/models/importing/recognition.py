"""Recognising what the weights in a file or folder are.

Only names and shapes are used, so files of gigabytes are recognised immediately.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hbr.models.files import (
    IMAGE_ENCODER_FORMAT,
    PROMPT_FORMAT,
    is_model_format,
    read_metadata,
    shapes_of,
)
from hbr.models.importing.osediff import KEYS as OSEDIFF_KEYS
from hbr.models.importing.osediff import is_osediff
from hbr.models.importing.reading import contents, find_tensors, load_pickle
from hbr.weights import WeightsError

Shapes = Mapping[str, tuple[int, ...]]

_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of weights with characteristic names.

    Attributes:
        what: a description with its article.
        keys: a regular expression of every name of such weights.
        mark: a part of a name without which weights do not belong to the family.
        kind: the kind for `import_weights`; None if hbr cannot import it.
        advice: what to do with it if hbr cannot import it.
    """

    what: str
    keys: str
    mark: str = ""
    kind: str | None = None
    advice: str = ""


@dataclass(frozen=True)
class Recognised:
    """The result of `recognise`.

    Attributes:
        kind: the kind for `import_weights`; None if hbr cannot import it.
        report: one line: what was recognised, what was not, and what to do.
        sure: whether something was recognised at all.
    """

    kind: str | None
    report: str
    sure: bool = True


_UNET = (
    r"(?!.*lora)(conv_(in|out|norm_out)|time_embedding\.linear_[12]|class_embedding"
    r"|(down|up)_blocks\.\d+\.(resnets|attentions|downsamplers|upsamplers)\.\d+"
    r"|mid_block\.(resnets|attentions)\.\d+)\..+"
)
_VAE = (
    r"(?!.*lora)((post_)?quant_conv|(encoder|decoder)\."
    r"(conv_(in|out|norm_out)|(down|up)_blocks\.\d+|mid_block)\..+)(\..+)?"
)
_RAM = (
    r"(visual_encoder|image_proj|tagging_head|text_decoder|tag_encoder|label_embed"
    r"|wordvec_proj|fc|vision_multi|reweight_scale|itm_head)\b.*"
)
_ELSEWHERE = "hbr builds on Stable Diffusion 2.1-base alone"
# the first best match counts, so variants precede what they are variants of
_FAMILIES = (
    Family(
        what="LyCORIS adapters (LoHa, LoKr)",
        keys=r".+\.(hada_w[12]_[ab]|lokr_w[12](_[ab])?|alpha)",
        mark="_w1",
        advice="hbr merges plain LoRA only",
    ),
    Family(
        what="the LoRA of SeeSR's DAPE over RAM",
        keys=rf"{_RAM}lora.*|(tag_encoder|text_decoder)\..+",
        mark=".lora_",
        advice="`hbr models import RAM.pth --kind tagger --dape` takes it, a training as init.dape",
    ),
    Family(
        what="a LoRA",
        keys=r".+[._](lora_[AB](\..+)?|lora[._](down|up)|lora_linear_layer\.(down|up))\.weight"
        r"|.+\.alpha",
        kind="lora",
    ),
    Family(what="an IP-Adapter", keys=r"(ip_adapter|image_proj\.(proj|norm|latents|layers))\b.*"),
    Family(what="a RAM checkpoint", keys=_RAM, mark="visual_encoder.", kind="ram"),
    Family(
        what="a ControlNet",
        keys=rf"controlnet_(cond_embedding|down_blocks|mid_block)\..+|{_UNET}",
        mark="controlnet_",
    ),
    Family(
        what="a U-Net of Stable Diffusion XL",
        keys=rf"add_embedding\..+|{_UNET}",
        mark="add_embedding.",
        advice=_ELSEWHERE,
    ),
    Family(what="a U-Net in diffusers' naming", keys=_UNET, mark="conv_in.", kind="unet"),
    Family(
        what="an autoencoder in diffusers' naming", keys=_VAE, mark="encoder.conv_in.", kind="vae"
    ),
    Family(
        what="a whole Stable Diffusion in one file, in the naming of its first code",
        keys=r"(model\.diffusion_model|model_ema|first_stage_model|cond_stage_model|conditioner)\..+"
        r"|alphas_cumprod.*|betas|(sqrt|log|posterior)_.+|logvar",
        advice="give the folder in diffusers layout: `hbr fetch sd-2.1-base`",
    ),
    Family(
        what="a CLIP text encoder",
        keys=r"(text_model|text_projection|logit_scale)\b.*",
        advice=_ELSEWHERE,
    ),
    Family(
        what="a diffusion transformer (Flux, SD 3)",
        keys=r"(model\.diffusion_model\.|transformer\.)?(double_blocks|single_blocks|joint_blocks"
        r"|transformer_blocks|single_transformer_blocks|img_in|txt_in|x_embedder|pos_embed"
        r"|context_embedder|time_in|vector_in|guidance_in|final_layer|norm_out|proj_out)\b.*",
        advice=_ELSEWHERE,
    ),
    Family(
        what="a SwinIR with upsampling by nearest neighbours",
        keys=r"(model\.)?(conv_(first(\.1)?|up\d|hr|last|after_body|before_upsample\.0)|patch_embed\.norm"
        r"|layers\.\d+\.(residual_group\.blocks|conv)|norm)\b.*",
        mark="conv_up1.",
        kind="swinir",
    ),
    Family(
        what="a GAN or transformer of super-resolution",
        keys=r"(model\.)?(conv_(first|body|up\d?|hr|last|after_body|before_upsample)|body|layers"
        r"|patch_embed|upsample|norm|RRDB_trunk|trunk_conv|upconv\d|HRconv)\b.*",
        mark="conv_",
        advice="`hbr restore --model` runs such files with the extra spandrel",
    ),
)


_HAODIFF = (
    "HAODiff, whose LoRA was trained at t = 199 with classifier-free guidance of 3.5 between a "
    "positive and a negative prompt from its own image encoder, which hbr's one step does not "
    "have; run its own code instead: `hbr methods show haodiff`"
)
# what lies beside its LoRA, which has the names of any other
_HAODIFF_ENCODER = "img_encoder_weights.pth"
_AS_PROGRAM = "run its own code instead, as a program (docs/methods.md)"
# keys of checkpoints of other methods over Stable Diffusion, and why hbr's one step is not theirs
_OTHER_LAYOUTS = (
    (
        {"unet_lora_encoder_modules_pix", "unet_lora_encoder_modules_sem", "state_dict_unet"},
        "a PiSA-SR checkpoint: two LoRAs, for pixels and for semantics, with which the U-Net "
        "predicts the residual of the latent at t = 1, which hbr's one step does not do; "
        + _AS_PROGRAM,
    ),
    (
        {"state_dict_unet_de_mlp", "state_dict_vae_de_mlp", "state_dict_unet", "state_embeddings"},
        "an S3Diff checkpoint: its LoRA is modulated, image by image, by networks that see an "
        f"estimate of the degradation, which hbr does not have; {_AS_PROGRAM}",
    ),
    ({"model_state_dict", "swinir_kwargs", "performer_kwargs"}, f"the image encoder of {_HAODIFF}"),
)


def recognise(path: str | Path) -> Recognised:
    """Recognise the weights in a file or folder.

    Raises:
        WeightsError: it is missing or damaged, or could run code.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if path.suffix == ".safetensors":
        metadata, shapes = read_metadata(path)
        return _own(path, metadata, shapes) or _by_names(path, shapes)
    values = load_pickle(path)
    if is_osediff(values):
        others = [str(key) for key in values if key not in OSEDIFF_KEYS]
        known = len(values) - len(others)
        return _sure("osediff", "an OSEDiff checkpoint", known, len(values), others)
    for keys, what in _OTHER_LAYOUTS:
        if isinstance(values, dict) and keys <= values.keys():
            return Recognised(None, f"{path} is {what}")
    tensors = find_tensors(values)
    if not tensors:
        return _unknown(path, contents(values))
    return _by_names(path, shapes_of(tensors))


def _folder(folder: Path) -> Recognised:
    for name in ("adapter_model.safetensors", "pytorch_lora_weights.safetensors"):
        if (folder / name).is_file() and (line := lora_of_another_method(folder / name)):
            return Recognised(None, line)
        if (folder / name).is_file():
            return Recognised(None, f"{folder} holds a LoRA: give {folder / name}")
    model = folder / "model.safetensors"
    if model.is_file() and is_model_format(read_metadata(model)[0].get("format", "")):
        return Recognised(None, f"{folder} holds a model of hbr: {model}, as it is")
    parts = [name for name in ("unet", "vae", "scheduler") if (folder / name).is_dir()]
    pipeline = _pipeline(folder)
    if {"unet", "vae"} <= set(parts) and pipeline in ("", "StableDiffusionPipeline"):
        return Recognised("diffusers", f"recognised a diffusers folder: {', '.join(parts)}")
    if pipeline or (folder / "transformer").is_dir():
        what = pipeline or "a transformer"
        return Recognised(None, f"{folder} is a diffusers folder of {what}; {_ELSEWHERE}")
    there = sorted(p.name for p in folder.iterdir())
    shown = ", ".join(there[:5]) + (f" and {len(there) - 5} more" if len(there) > 5 else "")
    lacks = [f"{name}/" for name in ("unet", "vae") if name not in parts]
    text = f"it has {shown or 'nothing'}; a diffusers folder would have {' and '.join(lacks)} too"
    return _unknown(folder, text)


def lora_of_another_method(path: Path) -> str:
    """One line if what lies beside a LoRA shows that it belongs to a method that hbr cannot run."""
    if (path.parent / _HAODIFF_ENCODER).is_file():
        return f"{path} is part of {_HAODIFF}"
    return ""


def _pipeline(folder: Path) -> str:
    """The pipeline class of a diffusers folder."""
    try:
        values = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        return str(values["_class_name"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _own(path: Path, metadata: Mapping[str, str], shapes: Shapes) -> Recognised | None:
    """Files written by hbr itself."""
    kind = metadata.get("format", "")
    found = {
        IMAGE_ENCODER_FORMAT: "is an image encoder of hbr; a training takes it as "
        "init.image_encoder, `hbr models import RAM.pth --kind ram --base MODEL` makes a restorer",
        PROMPT_FORMAT: "is a prompt extractor of hbr; --prompt-file puts it into a restorer",
    }.get(kind)
    if is_model_format(kind):
        found = "is a model file of hbr already; `hbr restore --model` takes it as it is"
    if found is None and "step" in metadata and any(n.startswith("optimizer.") for n in shapes):
        found = "is the state from which a training of hbr resumes; its model is model.safetensors "
        found += "beside it"
    return None if found is None else Recognised(None, f"{path} {found}")


def _by_names(path: Path, shapes: Shapes) -> Recognised:
    if not shapes:
        return _unknown(path, "it contains no weights")
    names = [name.removeprefix("module.") for name in shapes]
    best, most = None, 0
    for family in _FAMILIES:
        if not any(family.mark in name for name in names):
            continue
        count = sum(re.fullmatch(family.keys, name) is not None for name in names)
        if count > most:
            best, most = family, count
    if best is None:
        return _unknown(path, f"none of its {len(names)} names is known{_first(shapes, None)}")
    others = [name for name in names if not re.fullmatch(best.keys, name)]
    if len(others) > 0.1 * len(names):
        why = f"of its {len(names)} names, {most} are as in {best.what}, {len(others)} are not"
        return _unknown(path, why + _first(shapes, best))
    if best.kind == "lora" and (line := lora_of_another_method(path)):
        return Recognised(None, line)
    if best.kind is None:
        advice = f"; {best.advice}" if best.advice else ""
        return Recognised(None, f"{path} looks like {best.what}{advice}")
    return _sure(best.kind, best.what, most, len(names), others)


def _sure(kind: str, what: str, known: int, of: int, others: list[str]) -> Recognised:
    rest = f"; not known: {', '.join(others[:_SHOWN])}" if others else ""
    return Recognised(kind, f"recognised {what} by {known} of {of} names{rest}")


def _unknown(path: Path, why: str) -> Recognised:
    line = f"{path} has an unknown layout, and hbr does not guess: {why}"
    return Recognised(None, f"{line} (--kind says what it is)", sure=False)


def _first(shapes: Shapes, family: Family | None) -> str:
    """The first names that do not belong to the family, with their shapes."""
    left = [
        f"{name} {shape}"
        for name, shape in shapes.items()
        if family is None or not re.fullmatch(family.keys, name.removeprefix("module."))
    ]
    return f", as {', '.join(left[:_SHOWN])}" if left else ""


def must_be(kind: str, path: Path, error: WeightsError) -> WeightsError:
    """The error to report when importing `path` as `kind` failed: another kind, if it is one."""
    try:
        found = recognise(path)
    except WeightsError:
        return error
    if found.kind is None and found.sure:
        return WeightsError(f"{found.report} (asked for: --kind {kind})")
    # a RAM checkpoint also contains a tagger
    asked = "ram" if kind == "tagger" else kind
    if found.kind not in (None, asked):
        return WeightsError(f"{path} is not of kind {kind}: {found.report}; --kind {found.kind}")
    return error
