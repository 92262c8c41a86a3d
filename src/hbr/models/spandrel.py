"""Model files of other projects, read by spandrel: Real-ESRGAN, BSRGAN, SwinIR and many more.

A file is read as weights alone, and the network is recognised by their names and shapes. spandrel
is an extra: `pip install 'hbr[spandrel]'`.

Shapes: b tiles, h w what the network sees, f its factor; t_h t_w a tile of the result, all in
pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from hbr.errors import display_name, one_line
from hbr.models.protocol import Capabilities, Conditions, Place
from hbr.weights import WeightsError, instead_of_weights

# Such networks are convolutions or windows and take any size; tiles are for memory only.
_LARGE = 512
_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


@dataclass(frozen=True)
class NetworkFile:
    """A model file that spandrel has read, in float32 on the CPU.

    Attributes:
        descriptor: spandrel's `ImageModelDescriptor`.
        capabilities: what the network supports.
        version: spandrel's.
    """

    descriptor: Any
    capabilities: Capabilities
    version: str


class SpandrelNetwork:
    """A network of any factor f that is a `hbr.models.Model` on the grid of its result.

    Attributes:
        facts: architecture, factor, tags, versions, device and precision, as plain values.
    """

    def __init__(self, network: NetworkFile, device: torch.device, dtype: torch.dtype) -> None:
        """Move the network of a file to a device, in a precision of its capabilities."""
        self.capabilities = network.capabilities
        self.device, self.dtype = device, dtype
        found = network.descriptor
        self.facts = {
            "architecture": found.architecture.name,
            "factor": found.scale,
            "tags": list(found.tags),
            "spandrel": network.version,
            "torch": torch.__version__,
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
        }
        self._model = found.to(device=device, dtype=dtype).eval()

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """See `Model.restore`: of each square of f×f equal pixels the network sees one."""
        f = self.capabilities.upscale
        seen = tiles[:, :, ::f, ::f].to(self.dtype).contiguous()  # [b, 3, t_h / f, t_w / f]
        with torch.no_grad():
            made = [self._model(one[None]) for one in seen]  # spandrel takes one at a time
        return torch.cat(made).float()


def read_network(file: Path) -> NetworkFile:
    """Read a model file; nothing in it is run.

    Args:
        file: .pth, .pt or .ckpt, read with `torch.load(weights_only=True)`, or .safetensors.

    Raises:
        WeightsError: spandrel is not installed, or the file is not a network that restores RGB
            images; the message says what to do.
    """
    name = display_name(file)
    spandrel = _import_spandrel(name)
    weights = _read_weights(file, name)
    try:
        state = spandrel.canonicalize_state_dict(weights)
        found = spandrel.ModelLoader(device="cpu").load_from_state_dict(state)
    except spandrel.UnsupportedModelError:
        raise WeightsError(
            f"{name} is of no architecture that spandrel {spandrel.__version__} knows; "
            "`hbr models import` converts bases and LoRA"
        ) from None
    except Exception as error:  # a damaged state dict can fail anywhere in an architecture
        line = one_line(error, 200)
        raise WeightsError(f"{name} cannot be made a network of: {line}") from error
    what = found.architecture.name
    channels = (found.input_channels, found.output_channels)
    if not isinstance(found, spandrel.ImageModelDescriptor) or found.purpose == "FaceSR":
        raise WeightsError(f"{name} is {what}, which does not restore whole photographs")
    if channels != (3, 3):
        raise WeightsError(
            f"{name} is {what} from {channels[0]} to {channels[1]} channels, not RGB"
        )
    return NetworkFile(found, _capabilities(found), spandrel.__version__)


def _capabilities(found: Any) -> Capabilities:
    f: int = found.scale
    offered = {"bfloat16": found.supports_bfloat16, "float16": found.supports_half}
    return Capabilities(
        multiple_of=f * found.size_requirements.multiple_of,
        min_size=f * max(1, found.size_requirements.minimum),
        native_size=f * _LARGE,
        dtypes=("float32", *(name for name, runs in offered.items() if runs)),
        color="none",
        upscale=f,
        whole=found.tiling.name != "SUPPORTED",
    )


def _import_spandrel(name: str) -> ModuleType:
    try:
        return importlib.import_module("spandrel")
    except ModuleNotFoundError as error:
        raise WeightsError(
            f"{name} is not a model of hbr; `hbr models import` converts bases and LoRA, and "
            "networks of other projects (Real-ESRGAN, SwinIR …) run after "
            f"pip install 'hbr[spandrel]' ({error.name} is not installed)"
        ) from None
    except (ImportError, RuntimeError, OSError) as error:
        line = one_line(error, 200)
        raise WeightsError(
            f"spandrel cannot be imported ({line}); it needs a torchvision of the same build as "
            f"torch {torch.__version__}"
        ) from error


def _read_weights(file: Path, name: str) -> dict[str, Any]:
    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        raise WeightsError(f"{name} does not end in {', '.join(_SUFFIXES)}")
    try:
        if suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: Any = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(f"{name} does not exist") from None
    except Exception as error:  # pickle, zip and header errors of every kind
        line = one_line(error, 160)
        unread = f"cannot be read as weights alone, and nothing else in it is run ({line})"
        raise WeightsError(f"{name} {instead_of_weights(file) or unread}") from None
    if not isinstance(weights, dict):
        raise WeightsError(f"{name} holds a {type(weights).__name__}, no weights by name")
    return weights
