"""A published SwinIR, such as the first stage of DiffBIR, from its names and shapes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor

from hbr.config import ConfigError
from hbr.models.checkpoint import Checkpoint, check_weights, empty
from hbr.models.importing.reading import load_weights, origin
from hbr.models.swinir_config import SwinIRConfig
from hbr.weights import WeightsError

# constants that hbr computes
_COMPUTED = ("relative_position_index", "attn_mask")
_TABLE = "layers.{}.residual_group.blocks.0.attn.relative_position_bias_table"


def import_swinir(source: Path, report: Callable[[str], None]) -> Checkpoint:
    """Read a SwinIR with upsampling by nearest neighbours and convolutions.

    Args:
        source: a torch file, with or without a wrapper such as `params_ema`, or safetensors.
        report: called with each line of progress.

    Raises:
        WeightsError: the file is damaged, or another variant of SwinIR.
    """
    plain = {re.sub(r"^(module\.)?(model\.)?", "", n): t for n, t in load_weights(source).items()}
    tensors = {n: t.float() for n, t in plain.items() if not n.endswith(_COMPUTED)}
    config = _config(source, tensors)
    report(
        f"a SwinIR of {len(config.depths)} groups and width {config.embed_dim}, "
        f"factor {config.factor}"
    )
    check_weights(empty(config).state_dict(), tensors, source)
    card = origin(source, source, kind="swinir", trained="by its publisher")
    return Checkpoint(config, tensors, card)


def _config(source: Path, tensors: Mapping[str, Tensor]) -> SwinIRConfig:
    """The configuration that the shapes of the weights show."""
    try:
        first = tensors.get("conv_first.1.weight", tensors.get("conv_first.weight"))
        if first is None:
            raise KeyError("conv_first.weight")
        groups = 1 + max(int(m[1]) for n in tensors if (m := re.match(r"layers\.(\d+)\.", n)))
        tables = [tensors[_TABLE.format(i)] for i in range(groups)]
        hidden = tensors["layers.0.residual_group.blocks.0.mlp.fc1.weight"].shape[0]
        block = re.compile(r"layers\.(\d+)\.residual_group\.blocks\.\d+\.norm1\.weight")
        depths = Counter(int(m[1]) for n in tensors if (m := block.fullmatch(n)))
        dim = first.shape[0]
        upscale = 2 ** sum(bool(re.fullmatch(r"conv_up\d\.weight", n)) for n in tensors)
        unshuffle = math.isqrt(first.shape[1] // 3) if "conv_first.1.weight" in tensors else 1
        window = (math.isqrt(tables[0].shape[0]) + 1) // 2
        return SwinIRConfig(
            embed_dim=dim,
            depths=tuple(depths[i] for i in range(groups)),
            num_heads=tuple(t.shape[1] for t in tables),
            window_size=window,
            mlp_ratio=hidden / dim,
            unshuffle=unshuffle,
            upscale=upscale,
            width=tensors["conv_last.weight"].shape[1],
            native_size=-(-512 // (window * upscale)) * window * upscale,
            name=source.stem,
        )
    except (KeyError, ConfigError, ValueError, IndexError) as error:
        raise WeightsError(
            f"{source} is not a SwinIR with upsampling by nearest neighbours and convolutions: "
            f"{error}; `hbr methods run` runs the other variants"
        ) from None
