"""All weights of a U-Net or an autoencoder in diffusers' naming, in place of a base's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hbr.models.checkpoint import Checkpoint, empty
from hbr.models.importing.base import read_part
from hbr.models.importing.reading import origin
from hbr.models.importing.recognition import recognise


def import_network(source: Path, base: Checkpoint, report: Callable[[str], None]) -> Checkpoint:
    """Put the weights of one whole network in place of the base's.

    Args:
        source: a state dict in safetensors or of torch, as `unet/diffusion_pytorch_model…` is.
        base: a restorer whose network has the same sizes.
        report: called with a line of progress at a time.

    Raises:
        WeightsError: the file is damaged, or not for a base like this one.
    """
    part = "autoencoder" if recognise(source).kind == "vae" else "unet"
    model = empty(base.config)
    report(f"taking the {part}'s weights over")
    named = {f"{part}.{n}": t for n, t in read_part(getattr(model, part), source).items()}
    card = {**base.card, **origin(source, source, kind=part), "trained": "by its publisher"}
    card["base"] = base.card.get("source", "an hbr model")
    return Checkpoint(base.config, {**base.tensors, **named}, card)
