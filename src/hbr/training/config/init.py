"""The configuration of the weights that a training starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hbr.config import check


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Weights to start from, part by part; what no file gives keeps its random start.

    A name of `hbr models list` stands for what `hbr fetch` has put there.

    Attributes:
        base: autoencoder and U-Net, and the text encoder where the prompt needs one: a name
            ("sd-2.1-base"), a diffusers folder, or a model file of hbr, of which a prompt of the
            same kind is taken too. For a DiffBody model: a folder; a DiffBody model, of which all
            but the control branch is taken; or, where it takes no words, a one-step model such as
            a diffusion prior, of which autoencoder and U-Net are taken.
        fidelity: of a base with two ends, from 0, sharp, to 1, faithful; None is its default.
        difference: two model files of hbr, before and after another training of such a base; what
            it changed is added to the base's weights (task arithmetic, Ilharco et al. 2023).
        image_encoder: what the prompt sees the image through: a name ("ram-swin-l"), a RAM
            checkpoint, or a file of `hbr models import --kind ram`. HFIE takes the image encoder
            of it; `dape` the whole tagger, which only a RAM checkpoint has.
        dape: LoRA of SeeSR's DAPE, merged into the tagger; None leaves the tagger as RAM's.
        tags: the names of the tags, a line each; None is `ram_tag_list.txt` beside the checkpoint,
            or where `hbr fetch ram-tags` puts it.
        stage1, control: of a DiffBody model: a SwinIR, as `hbr restore --model` takes it, and a
            control branch in diffusers' names, whose first convolution may see 13 channels.
        thresholds: how likely each tag must be to count, a line each; None is
            `ram_tag_list_threshold.txt` in the same places, or 0.68 for all if it is in neither.
    """

    base: Path | None = None
    fidelity: float | None = None
    difference: tuple[Path, Path] | None = None
    image_encoder: Path | None = None
    dape: Path | None = None
    tags: Path | None = None
    thresholds: Path | None = None
    stage1: Path | None = None
    control: Path | None = None

    def __post_init__(self) -> None:
        ok = self.base is not None or self.image_encoder is not None
        check(ok, "base", self.base, "given, or `image_encoder`")
        for name in ("fidelity", "difference"):
            got = getattr(self, name)
            ok = got is None or self.base is not None
            check(ok, name, got, "left out, since no `base` is given")
        for name in ("dape", "tags", "thresholds"):
            got = getattr(self, name)
            ok = got is None or self.image_encoder is not None
            check(ok, name, got, "left out, since no `image_encoder` is given")
