"""Models that are made on this machine of published parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from hbr.models.checkpoint import save_checkpoint
from hbr.models.files import read_header, require_one_step
from hbr.models.importing.osediff import import_osediff
from hbr.models.importing.tagger import put_into_base
from hbr.weights import Entry, WeightsError, entries


def assemble_osediff(
    entry: Entry, folders: Mapping[str, Path], out: Path, report: Callable[[str], None]
) -> Path:
    """Make OSEDiff of its parts as published: the U-Net and the encoder with their LoRA merged.

    RAM with DAPE's LoRA gives the tags that prompt the U-Net. The file has the same weights as
    `hbr models import` makes in two steps, in float32.

    Args:
        entry: of the catalogue, for its name and licence.
        folders: name of each part → the folder with its files.
        out: the file, written whole or not at all.
        report: called with each line of progress.

    Raises:
        WeightsError: a part is damaged, or does not fit the others; nothing is written.
    """

    def file(name: str) -> Path:
        return folders[name] / entries()[name].files[0].path

    base, lists = folders["sd-2.1-base"], folders["ram-tags"]
    tagged = put_into_base(base, file("ram-swin-l"), file("dape"), report, lists)
    made = import_osediff(file("osediff-lora"), tagged, report)
    for name, tensor in made.tensors.items():
        if not torch.isfinite(tensor).all():
            raise WeightsError(
                f"{entry.name}: the weight {name} is not finite, so one of its parts is damaged"
            )
    config = dataclasses.replace(require_one_step(made.config, out), name=entry.name)
    report(f"writing {out}")
    save_checkpoint(out, config, made.tensors, card={**made.card, "licence": entry.licence})
    if read_header(out).config != config:
        raise WeightsError(f"{out} does not read back as it was written; delete it")
    return out
