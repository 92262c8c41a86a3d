"""All weights of a U-Net or an autoencoder in diffusers' naming, in place of a base's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hbr.models.checkpoint import Checkpoint, empty
from hbr.models.importing.base import read_part
from hbr.models.importing.reading import published


def import_network(
    source: Path,
    base: Checkpoint,
    part: Literal["unet", "autoencoder"],
    report: Callable[[str], None],
) -> Checkpoint:
    """Replace all weights of one network of the base.

    Args:
        source: a state dict in safetensors or of torch, as `unet/diffusion_pytorch_model…` is.
        base: a restorer whose network has the same sizes.
        part: of the restorer, which network it is.
        report: called with each line of progress.

    Raises:
        WeightsError: the file is damaged, or does not match the base.
    """
    model = empty(base.config)
    report(f"replacing the weights of the {part}")
    named = {f"{part}.{n}": t for n, t in read_part(model.get_submodule(part), source).items()}
    card = published(base.card, source, part)
    return Checkpoint(base.config, {**base.tensors, **named}, card)
