"""What a model is to the rest of hbr: capabilities as data, and one call that restores tiles.

Anything that satisfies `Model` runs in `hbr.Restorer`: a network of any kind, or a backend that
stands in for one (compiled, exported). torch is needed for the types only.

Shapes: b tiles, t_h t_w a tile in pixels, q tokens, d their width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ColorFix = Literal["wavelet", "adain", "none"]


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a model supports, as data, so that no caller needs a special case.

    Attributes:
        multiple_of: edges of the input must be multiples of this, in pixels.
        min_size: smallest edge, in pixels.
        native_size: the edge that the model was trained on, in pixels.
        dtypes: precisions that the model runs in, best first.
        takes_prompt: a text may replace the prompt that the model makes of the image.
        color: the colour fix that suits the model.
        upscale: the factor of a network that enlarges; see `Model.restore`.
        whole: tiles would show, so a photo is restored as a whole unless a size is given.
    """

    multiple_of: int
    min_size: int
    native_size: int
    dtypes: tuple[str, ...]
    takes_prompt: bool = False
    color: ColorFix = "wavelet"
    upscale: int = 1
    whole: bool = False


@dataclass(frozen=True)
class Place:
    """Where a tile lies in its photo, in pixels.

    Attributes:
        top, left: the tile's first pixel.
        height, width: the photo.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class Conditions:
    """What guides a model besides the image; the first dimension of every tensor is the batch.

    Attributes:
        maps: name → [b, c, h, w] at the size of the image; each tile gets its own part.
        tokens: name → [b, q, d], such as a prompt; the same for every tile of an image.
    """

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)

    def part(self, at: slice) -> Conditions:
        """Those of a part of the batch."""
        return self._each(lambda tensor: tensor[at])

    def to(self, device: str | torch.device) -> Conditions:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        return Conditions(
            {name: change(tensor) for name, tensor in self.maps.items()},
            {name: change(tensor) for name, tensor in self.tokens.items()},
        )


class Model(Protocol):
    """A model, or a backend that runs one."""

    @property
    def capabilities(self) -> Capabilities:
        """What it supports."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def dtype(self) -> torch.dtype:
        """Precision of its weights."""

    def restore(self, tiles: Tensor, places: Sequence[Place], conditions: Conditions) -> Tensor:
        """Restore tiles of one photo.

        Args:
            tiles: float32 [b, 3, t_h, t_w] in [0, 1], as large as `capabilities` asks for. For a
                network that enlarges f times they lie on the grid of its result: each pixel that
                it is to see is repeated f times each way.
            places: where each of them lies in the photo.
            conditions: of each of them; what the model does not know is ignored.

        Returns:
            the same shape, about [0, 1], not clamped.
        """


class PromptedModel(Model, Protocol):
    """A model whose `capabilities.takes_prompt` is true."""

    def embed(self, text: str) -> Tensor:
        """The prompt of a text, [1, q, d], for `Conditions.tokens["prompt"]`."""


class ModelConfig(Protocol):
    """The configuration of a model of any kind, as plain data (`hbr.models.kinds.KINDS`)."""

    @property
    def kind(self) -> str:
        """Its key in `KINDS`."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def capabilities(self) -> Capabilities:
        """What a model of this configuration supports."""
