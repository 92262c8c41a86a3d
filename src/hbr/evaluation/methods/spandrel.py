"""Model files of other projects as a method, through `hbr.models.spandrel`.

Shapes: h w what the network sees, f its factor, in pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hbr.devices import choose_device, reproducible, torch_dtype
from hbr.errors import display_name
from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.config import SpandrelConfig
from hbr.evaluation.methods.method import MethodSteps, RestorePixels, one_by_one
from hbr.evaluation.methods.resizing import Pixels, fed_size, resized, wanted_size
from hbr.evaluation.methods.result_folder import identity
from hbr.files import sha256
from hbr.image.pixels import to_8_bits
from hbr.models.spandrel import SpandrelNetwork, read_network
from hbr.restoration.passes.inference import run_within_memory
from hbr.restoration.passes.tiling import least_tile, plan_tiles
from hbr.restoration.settings import TileChoice


def prepare(config: SpandrelConfig, out: Path) -> MethodSteps:
    """A network that spandrel reads; the file is read when there is something to restore."""
    file = config.file
    try:
        digest = sha256(file)
    except OSError as error:
        raise MethodError(f"{display_name(file)}: {error.strerror or error}") from None
    if config.sha256 not in ("", digest):
        raise MethodError(
            f"{display_name(file)} has the SHA-256 {digest}; pinned is {config.sha256}"
        )
    who = identity(config, name=file.name, sha256=digest)
    return MethodSteps(identity=who, restore=one_by_one(lambda: _load(config)))


def _load(config: SpandrelConfig) -> tuple[dict[str, Any], RestorePixels]:
    try:
        place = choose_device(config.device)
        file = read_network(config.file)
    except ValueError as error:
        raise MethodError(str(error)) from error
    precision = "float32" if config.dtype == "auto" else config.dtype
    if precision not in file.capabilities.dtypes:
        raise MethodError(
            f"{display_name(config.file)} is {file.descriptor.architecture.name}, which does not "
            f"run in {precision}"
        )
    network = SpandrelNetwork(file, place, torch_dtype(precision))
    f = network.capabilities.upscale
    least = least_tile(network.capabilities) // f
    if config.tile != "auto" and 0 < config.tile < least:
        raise MethodError(f"tile is {config.tile}; this network needs at least {least}, or 0")

    def restore(pixels: Pixels) -> Pixels:
        size = (pixels.shape[0], pixels.shape[1])
        fed = fed_size(size, config.scale, f, config.input)
        made = enlarge(network, resized(pixels, fed), config.tile)
        return resized(made, wanted_size(size, config.scale))

    return network.facts, restore


def enlarge(network: SpandrelNetwork, pixels: Pixels, tile: TileChoice = "auto") -> Pixels:
    """[h, w, 3] uint8 → [f·h, f·w, 3] uint8.

    Tiles are planned on the grid of the result: the input's pixels are repeated f times each way,
    and every f-th of a tile is what the network sees. Windows, blending and the retreat when memory
    runs out are then those of `hbr.restoration`.

    Args:
        network: of factor f.
        pixels: RGB.
        tile: edge in pixels of what the network sees; "auto" takes photos up to about 512 pixels as
            a whole, and all photos where tiles would show.

    Raises:
        hbr.restoration.OutOfMemoryError: the smallest tiles do not fit.
        FloatingPointError: values that are not finite came out.
    """
    f = network.capabilities.upscale
    grown = pixels.repeat(f, axis=0).repeat(f, axis=1)
    edge = tile if tile == "auto" else f * tile
    plan = plan_tiles(grown.shape[0], grown.shape[1], network.capabilities, edge)
    with reproducible(0, network.device):
        run = run_within_memory(network, grown, plan)
    return to_8_bits(run.pixels)
