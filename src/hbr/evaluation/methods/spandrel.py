"""Model files of other architectures through spandrel: Real-ESRGAN, BSRGAN, SwinIR and many more.

Shapes: b tiles, h w what the network sees, f its factor; t_h t_w a tile of the result, all in
pixels.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hbr.devices import choose_device, reproducible, torch_dtype
from hbr.errors import display_name, one_line
from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.config import SpandrelConfig
from hbr.evaluation.methods.in_process import PictureSteps, RestorePixels
from hbr.evaluation.methods.resizing import Pixels, fed_size, resized, wanted_size
from hbr.evaluation.methods.result_folder import identity
from hbr.files import sha256
from hbr.image.pixels import to_8_bits
from hbr.models import Capabilities
from hbr.restoration.inference import run_within_memory
from hbr.restoration.settings import TileChoice
from hbr.restoration.tiling import least_tile, plan_tiles
from hbr.weights import instead_of_weights

# Such networks are convolutions or windows and take any size; tiles are for memory only.
_LARGE = 512
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


def prepare(config: SpandrelConfig, out: Path) -> PictureSteps:
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
    return PictureSteps(identity=who, load=lambda: _load(config))


def _load(config: SpandrelConfig) -> tuple[dict[str, Any], RestorePixels]:
    network = load_network(config.file, config.device, config.dtype)
    least = least_tile(network.capabilities) // network.factor
    if config.tile != "auto" and 0 < config.tile < least:
        raise MethodError(f"tile is {config.tile}; this network needs at least {least}, or 0")

    def restore(pixels: Pixels) -> Pixels:
        size = (pixels.shape[0], pixels.shape[1])
        fed = fed_size(size, config.scale, network.factor, config.input)
        made = network(resized(pixels, fed), config.tile)
        return resized(made, wanted_size(size, config.scale))

    return network.told, restore


class SpandrelNetwork:
    """A network of any factor f over photos of any size.

    It is a `hbr.models.Model` on the grid of the result, where it sees every pixel of its input f
    times each way.
    """

    def __init__(self, descriptor: Any, device: torch.device, dtype: str, version: str) -> None:
        """Take it from spandrel.

        Args:
            descriptor: spandrel's `ImageModelDescriptor`.
            device: where it is to run.
            dtype: in what precision.
            version: spandrel's.
        """
        self.factor: int = descriptor.scale
        sizes = descriptor.size_requirements
        self.capabilities = Capabilities(
            multiple_of=self.factor * sizes.multiple_of,
            min_size=self.factor * max(1, sizes.minimum),
            native_size=self.factor * _LARGE,
            dtypes=(dtype,),
        )
        self.told = {
            "architecture": descriptor.architecture.name,
            "factor": self.factor,
            "tags": list(descriptor.tags),
            "spandrel": version,
            "torch": torch.__version__,
            "device": str(device),
            "dtype": dtype,
        }
        self.dtype = torch_dtype(dtype)
        self.device = device
        self._model = descriptor.to(device=device, dtype=self.dtype).eval()
        self._whole = descriptor.tiling.name != "SUPPORTED"

    def __call__(self, pixels: Pixels, tile: TileChoice = "auto") -> Pixels:
        """[h, w, 3] uint8 → [f·h, f·w, 3] uint8.

        Tiles are planned on the grid of the result: the input's pixels are repeated f times each
        way, and every f-th of a tile is what the network sees. Windows, blending and the retreat
        when memory runs out are then those of `hbr.restoration`.

        Args:
            pixels: RGB.
            tile: edge in pixels of what the network sees; "auto" takes photos up to about 512
                pixels as a whole, and all photos where tiles would show.

        Raises:
            hbr.restoration.OutOfMemoryError: the smallest tiles do not fit.
            FloatingPointError: values that are not finite came out.
        """
        f = self.factor
        if tile == "auto" and self._whole:
            tile = 0
        grown = np.repeat(np.repeat(pixels, f, axis=0), f, axis=1) if f > 1 else pixels
        edge = tile if tile == "auto" else f * tile
        plan = plan_tiles(grown.shape[0], grown.shape[1], self.capabilities, edge)
        with reproducible(0, self.device):
            run = run_within_memory(self, grown, plan)
        return to_8_bits(run.pixels)

    def restore(self, tiles: Tensor, *_: object) -> Tensor:
        """[b, 3, t_h, t_w] with every pixel repeated → the same shape, restored."""
        f = self.factor
        seen = tiles[:, :, ::f, ::f].to(self.dtype).contiguous()  # [b, 3, t_h / f, t_w / f]
        made = [self._model(one[None]) for one in seen]  # spandrel takes one at a time
        return torch.cat(made).float()


def load_network(file: Path, device: str = "auto", dtype: str = "auto") -> SpandrelNetwork:
    """Read a model file; nothing in it is run.

    Args:
        file: .pth, .pt or .ckpt, read with `torch.load(weights_only=True)`, or .safetensors.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        dtype: "auto" (float32), or a precision that the architecture takes.

    Raises:
        MethodError: spandrel is not installed, or the file is not an RGB image
            network of.
    """
    spandrel = _import_spandrel()
    try:
        place = choose_device(device)
    except ValueError as error:
        raise MethodError(str(error)) from None
    name = display_name(file)
    weights = _read_weights(file, name)
    try:
        state = spandrel.canonicalize_state_dict(weights)
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    except spandrel.UnsupportedModelError:
        raise MethodError(
            f"{name} is of no architecture that spandrel {spandrel.__version__} knows"
        ) from None
    except Exception as error:  # a damaged state dict can fail anywhere in an architecture
        line = one_line(error, 200)
        raise MethodError(f"{name} cannot be made a network of: {line}") from error
    what = found.architecture.name
    channels = (found.input_channels, found.output_channels)
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.purpose == "FaceSR":
        raise MethodError(f"{name} is {what}, which does not restore whole photographs")
    if channels != (3, 3):
        raise MethodError(f"{name} is {what} from {channels[0]} to {channels[1]} channels, not RGB")
    precision = "float32" if dtype == "auto" else dtype
    offered = {"float16": found.supports_half, "bfloat16": found.supports_bfloat16}
    if not offered.get(precision, True):
        raise MethodError(f"{name} is {what}, which does not run in {precision}")
    return SpandrelNetwork(found, place, precision, spandrel.__version__)


def _import_spandrel() -> ModuleType:
    try:
        return importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        raise MethodError(
            f"{error.name} is not installed; methods of kind spandrel need it: "
            "pip install 'hbr[spandrel]'"
        ) from None
    except (ImportError, RuntimeError, OSError) as error:
        line = one_line(error, 200)
        raise MethodError(
            f"spandrel cannot be imported ({line}); it needs a torchvision of the same build as "
            f"torch {torch.__version__}"
        ) from error


def _read_weights(file: Path, name: str) -> dict[str, Any]:
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        raise MethodError(f"{name} does not end in {', '.join(_SUFFIXES)}")
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: Any = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MethodError(f"{name} does not exist") from None
    except Exception as error:  # pickle, zip and header errors of every kind
        line = one_line(error, 160)
        unread = f"cannot be read as weights alone, and nothing else in it is run ({line})"
        raise MethodError(f"{name} {instead_of_weights(file) or unread}") from None
    if not isinstance(weights, dict):
        raise MethodError(f"{name} holds a {type(weights).__name__}, no weights by name")
    return weights
