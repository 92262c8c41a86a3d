"""Models of hbr as a method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.config import HbrConfig
from hbr.evaluation.methods.method import MethodSteps, RestorePixels, one_by_one
from hbr.evaluation.methods.resizing import Pixels, wanted_size
from hbr.evaluation.methods.result_folder import identity

if TYPE_CHECKING:
    from hbr.weights import FoundFile


def prepare(config: HbrConfig, out: Path) -> MethodSteps:
    """`hbr.Restorer` over the inputs; the model is loaded when there is something to restore."""
    from hbr.weights import find_and_hash_model

    try:
        found = find_and_hash_model(config.model)
    except (ValueError, OSError) as error:
        raise MethodError(str(error)) from error
    # results of runs before there was a setting stay those of runs without it
    who = {name: v for name, v in identity(config, sha256=found.sha256).items() if v is not None}
    return MethodSteps(identity=who, restore=one_by_one(lambda: _load(config, found)))


def _load(config: HbrConfig, found: FoundFile) -> tuple[dict[str, Any], RestorePixels]:
    import torch

    from hbr.restoration import Restorer

    try:
        restorer = Restorer.from_file(found, config.device, config.dtype)
        restorer.conditions(config.settings)
    except ValueError as error:
        raise MethodError(str(error)) from error
    device = str(restorer.device)
    made_with = {"torch": torch.__version__, "device": device, "dtype": restorer.dtype}

    def restore(pixels: Pixels) -> Pixels:
        height, width = wanted_size((pixels.shape[0], pixels.shape[1]), config.scale)
        made = restorer(pixels, config.settings).pixels
        assert made.shape[:2] == (height, width)
        return made  # type: ignore[return-value]  # 8 bits in, 8 bits out

    return made_with, restore
