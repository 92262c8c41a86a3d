"""The strength of a LoRA, ΔW = s · B A, from its metadata or a configuration beside it.

This is the only place that reads them. Sources, the first that is there counts:

1. `lora_adapter_metadata` of diffusers, with or without a prefix (`unet.`, `vae.`), or another
   metadata entry that is a peft configuration in JSON;
2. plain entries of the metadata, such as `lora_alpha`, `network_alpha`, `ss_network_alpha`;
3. peft's `adapter_config.json` in the folder of the file.

s is α/r, or α/√r if `use_rslora` is on (rank-stabilized LoRA, arXiv 2312.03732). What changes the
maths in another way is refused, what is not known is named in a warning.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hbr.models.importing.reading import load_json
from hbr.weights import WeightsError

NETWORKS = {"unet": "unet", "vae": "autoencoder", "autoencoder": "autoencoder"}
"""Prefix of settings and weights → the network of the model."""

_PACKED = "lora_adapter_metadata"
_BESIDE = "adapter_config.json"
_PEFT_FILE = "adapter_model.safetensors"
_PLAIN = {
    "lora_alpha": "lora_alpha",
    "alpha": "lora_alpha",
    "network_alpha": "lora_alpha",
    "ss_network_alpha": "lora_alpha",
    "r": "r",
    "rank": "r",
    "lora_rank": "r",
    "network_dim": "r",
    "ss_network_dim": "r",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
}
# entries that describe a file and change nothing in its maths; besides those of hbr's cards
_DESCRIBING = re.compile(
    r"format|(ss|sshs|modelspec)[_.].+|licen[cs]e|trained(_on)?|steps|step|epoch|source(_sha256)?"
    r"|kind|base(_model.*)?|name|title|author|version|description|date|image_encoder|tagger"
)
# settings of peft that say where a LoRA is or how it was trained, not what it computes
_NEUTRAL = re.compile(
    r"r|rank_pattern|(target|exclude)_modules|layers_(to_transform|pattern)|lora_dropout"
    r"|inference_mode|base_model_name_or_path|revision|task_type|auto_mapping|peft_version"
    r"|megatron_core|runtime_config|ensure_weight_tying|qalora_group_size|eva_config"
)
_USED = frozenset(["lora_alpha", "alpha_pattern", "use_rslora"])
_NOTHING = (None, False, "", "none", "None", "false", "False", 0, "0")
# of peft's ways to initialise, those that leave the weights of the base as they are
_PLAIN_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """What is stated about the LoRA of one network.

    Attributes:
        where: what states it, for messages.
        alpha: α of all layers; None if it is not stated.
        alphas: pattern of layer names → α, as peft's `alpha_pattern`.
        rank, ranks: the same for the rank, which must be that of the weights.
        rank_stabilized: the scale is α/√r instead of α/r.
    """

    where: str = ""
    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    rank: int | None = None
    ranks: Mapping[str, float] = field(default_factory=dict)
    rank_stabilized: bool = False

    def alpha_of(self, layer: str) -> float | None:
        """α of a layer; None if it is not stated."""
        return _by_pattern(self.alphas, layer, self.alpha)

    def scale(self, layer: str, rank: int, alpha: float | None = None) -> float:
        """The factor of B A of a layer.

        Args:
            layer: its name.
            rank: of its matrices.
            alpha: in place of the stated one; if neither is there, α is the rank, as in diffusers.

        Raises:
            WeightsError: another rank is stated.
        """
        stated = _by_pattern(self.ranks, layer, self.rank)
        if stated is not None and stated != rank:
            raise WeightsError(
                f"{self.where} states rank {stated:g} for {layer}, its matrices have rank {rank}: "
                "it belongs to another LoRA, move it away; --alpha states α"
            )
        alpha = self.alpha_of(layer) if alpha is None else alpha
        alpha = float(rank) if alpha is None else alpha
        return alpha / (math.sqrt(rank) if self.rank_stabilized else rank)


def read_settings(
    source: Path, metadata: Mapping[str, str]
) -> tuple[dict[str, LoraSettings], list[str]]:
    """What the metadata of a LoRA file, or a configuration beside it, states.

    Returns:
        "unet" and "autoencoder" → the settings of each, and a line for each thing that is stated
        and was not used.

    Raises:
        WeightsError: a setting is no plain LoRA's, or its value is not valid.
    """
    beside = source.with_name(_BESIDE)
    another = source.name != _PEFT_FILE and source.with_name(_PEFT_FILE).is_file()
    warnings = []
    used: Collection[str] = ()
    if packed := _packed(source, metadata):
        used, where, values = packed[:1], f"{source}: its {packed[0]}", packed[1]
    elif plain := _plain(metadata):
        used, where, values = plain, f"{source}: its metadata", plain
    elif beside.is_file() and not another:
        where, values = str(beside), load_json(beside)
    else:
        where, values = "", {}
    if beside.is_file() and where != str(beside):
        why = f"it belongs to {_PEFT_FILE}" if another else "the file states its own settings"
        warnings.append(f"{beside} was not used: {why}")
    left = sorted(n for n, v in metadata.items() if n not in used and not _describes(n, v))
    if left:
        shown = ", ".join(f"{name} = {metadata[name][:40]!r}" for name in left[:5])
        more = f" and {len(left) - 5} more" if left[5:] else ""
        warnings.append(f"{source}: entries of its metadata that are not known here: {shown}{more}")
    networks = {network: _checked(own, where) for network, own in _by_network(values).items()}
    return networks, warnings


def rank_of(a: Tensor, layer: str, source: Path) -> int:
    """The rank of the LoRA of a layer, by its A: [r, in] or [r, in, k, k].

    Raises:
        WeightsError: it is no such matrix.
    """
    if a.dim() < 2 or len(a) == 0:
        raise WeightsError(f"{source}: A of {layer} is {tuple(a.shape)}; a matrix is needed")
    return len(a)


def _describes(name: str, value: str) -> bool:
    """Whether an entry changes nothing in the maths."""
    if name == "ss_network_args":  # may hold other values for convolutions
        return value in ("{}", "None", "null", "")
    return name in _PLAIN or _DESCRIBING.fullmatch(name) is not None


def _packed(source: Path, metadata: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """The entry that is a peft configuration in JSON, and its content."""
    for name in sorted(metadata, key=lambda name: name != _PACKED):
        try:
            values = json.loads(metadata[name])
        except ValueError:
            values = None
        if isinstance(values, dict) and any(k.endswith("lora_alpha") for k in values):
            return name, values
        if name == _PACKED and not isinstance(values, dict):
            raise WeightsError(f"{source}: its {_PACKED} is not JSON of an object")
    return None


def _plain(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Settings that are entries of the metadata by themselves."""
    found: dict[str, Any] = {}
    for name, value in metadata.items():
        prefix, _, last = name.rpartition(".")
        if last not in _PLAIN or (prefix and prefix not in NETWORKS):
            continue
        # kohya's tools write None or 0 for an α that is the rank
        if name == "ss_network_alpha" and value in ("None", "0", "0.0"):
            continue
        # plain entries give the largest rank only; the matrices have their own
        if _PLAIN[last] != "r":
            found[f"{prefix}.{_PLAIN[last]}" if prefix else _PLAIN[last]] = value
    return found


def _by_network(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Settings of each network; one without a prefix is of all."""
    out: dict[str, dict[str, Any]] = {"unet": {}, "autoencoder": {}}
    for key, value in values.items():
        prefix, _, name = key.partition(".")
        if name and prefix in NETWORKS:
            out[NETWORKS[prefix]][name] = value
        elif not name:
            for settings in out.values():
                settings.setdefault(key, value)
    return out


def _checked(values: Mapping[str, Any], where: str) -> LoraSettings:
    for name, value in values.items():
        plain = (
            bool(_NEUTRAL.fullmatch(name))
            or name in _USED
            or value in _NOTHING
            or value in ([], {})
        )
        if name == "init_lora_weights":
            plain = value in _PLAIN_STARTS
        if name == "peft_type":
            plain = value == "LORA"
        if not plain:
            raise WeightsError(
                f"{where}: {name} is {'on' if value is True else value}; hbr merges plain LoRA only"
            )
    alpha, rank = values.get("lora_alpha"), values.get("r")
    return LoraSettings(
        where=where,
        alpha=None if alpha is None else _number(alpha, "lora_alpha", where),
        alphas=_numbers(values.get("alpha_pattern"), "alpha_pattern", where),
        rank=None if rank is None else int(_number(rank, "r", where)),
        ranks=_numbers(values.get("rank_pattern"), "rank_pattern", where),
        rank_stabilized=values.get("use_rslora") not in _NOTHING,
    )


def _numbers(values: Any, name: str, where: str) -> dict[str, float]:
    try:
        found = dict((values or {}).items())
        for key in found:
            re.compile(_of_layers(key))
    except (AttributeError, re.error):
        raise WeightsError(
            f"{where}: {name} is {values!r}; it must map patterns to numbers"
        ) from None
    return {key: _number(value, name, where) for key, value in found.items()}


def _number(value: Any, name: str, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not math.isfinite(number):
        raise WeightsError(f"{where}: {name} is {value!r}; it must be a number (--alpha states α)")
    return number


def _by_pattern(patterns: Mapping[str, float], layer: str, default: float | None) -> float | None:
    """The value of the first pattern that the name of a layer ends in, as peft matches them."""
    for pattern, value in patterns.items():
        if re.fullmatch(_of_layers(pattern), layer):
            return value
    return default


def _of_layers(pattern: str) -> str:
    return rf"(.*\.)?({pattern})"
