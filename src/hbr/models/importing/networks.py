"""All weights of a U-Net or an autoencoder in diffusers' naming, in place of a base's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hbr.models.checkpoint import Checkpoint, empty
from hbr.models.importing.base import read_part
from hbr.models.importing.reading import origin


def import_network(
    source: Path,
    base: Checkpoint,
    part: Literal["unet", "autoencoder"],
    report: Callable[[str], None],
) -> Checkpoint:
    """Put the weights of one whole network in place of the base's.

    Args:
        source: a state dict in safetensors or of torch, as `unet/diffusion_pytorch_model…` is.
        base: a restorer whose network has the same sizes.
        part: of the restorer, which network it is.
        report: called with a line of progress at a time.

    Raises:
        WeightsError: the file is damaged, or not for a base like this one.
    """
    model = empty(base.config)
    report(f"taking the {part}'s weights over")
    named = {f"{part}.{n}": t for n, t in read_part(model.get_submodule(part), source).items()}
    card = {**base.card, **origin(source, source, kind=part), "trained": "by its publisher"}
    card["base"] = base.card.get("source", "an hbr model")
    return Checkpoint(base.config, {**base.tensors, **named}, card)
