"""What a model is to the rest of hbr: capabilities as data, and one call that restores tiles.

Anything that satisfies `Model` runs in `hbr.Restorer`: a network of any kind, or a backend that
stands in for one (compiled, exported). torch is needed for the types only.

Shapes: b tiles, t_h t_w a tile in pixels, q tokens, d their width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from hbr.config import check, check_least

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

ColorFix = Literal["wavelet", "adain", "none"]
COLOR_FIXES: tuple[ColorFix, ...] = get_args(ColorFix)
LARGEST_STEPS = 1000

Backend = Literal["eager", "compiled", "openvino", "onnx"]
"""What runs a model: torch, torch with compiled kernels, or a graph in OpenVINO or ONNX Runtime."""

BACKENDS: tuple[Backend, ...] = get_args(Backend)
IN_TORCH: frozenset[Backend] = frozenset({"eager", "compiled"})
"""The backends that import torch; the others run an exported graph."""

SamplerName = Literal["guided", "ddpm", "ddim", "unipc"]
PartLoss = Literal["auto", "cosine", "cross-entropy", "squared"]


@dataclass(frozen=True, kw_only=True)
class LatentSpace:
    """A latent space, as far as its shape says what it is.

    Attributes:
        channels: of z.
        factor: pixels along one edge of a cell of z.
        scaling_factor: z is the autoencoder's latent times this.
    """

    channels: int
    factor: int
    scaling_factor: float

    def __str__(self) -> str:
        """For messages."""
        cell = f"{self.factor}×{self.factor} pixels"
        return f"{self.channels} channels for {cell}, scaled by {self.scaling_factor:g}"


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
        samples: it is a `SamplingModel`: it restores in two stages and many steps, sees the whole
            photo at once, and divides it itself.
        maps: names of the `Conditions.maps` that guide it; missing ones count as zeros.
        person_crops: its attention spans the whole image, so that it is tied to the size that it
            was trained at: a smaller person is restored as a crop that is enlarged to
            `native_size`. Without, people are restored at the resolution that they have.
        latent: what its decoder decodes, so that another decoder of the same latents can take its
            place; None if it has none.
        fixed_tiles: it is fast on tiles of `native_size` alone, so photos are divided into these.
    """

    multiple_of: int
    min_size: int
    native_size: int
    dtypes: tuple[str, ...]
    takes_prompt: bool = False
    color: ColorFix = "wavelet"
    upscale: int = 1
    whole: bool = False
    samples: bool = False
    maps: tuple[str, ...] = ()
    person_crops: bool = False
    latent: LatentSpace | None = None
    fixed_tiles: bool = False


PreviewStep = Callable[[int, int, Callable[[], "Tensor"]], None]
"""Called with the number of steps done, their total, and a function that makes a preview."""


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


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a model samples its result in many steps (`hbr.models.sampling`).

    Attributes:
        steps: number of steps, evenly spaced.
        sampler: "guided" is DDPM with `guidance`; the others are unguided.
        guidance: s of DiffBody's Algorithm 1 (`hbr.models.sampling.Guidance`); 0 is DDPM.
        text_guidance: scale of classifier-free guidance by the text; 1 is none.
        part_loss: the loss whose gradient guides; "auto" is cosine with a network of parts,
            squared without.
        through: what its gradient goes through.
        window, repeats: which steps are guided, and how often each is made.
        start: "noise" starts from noise alone, "photo" from the noised result of the first stage.
        strength: where a start from the photo begins, as a part of the noise schedule: 1 is as
            noisy as noise alone, lower values keep more of the photo (SDEdit, Meng et al. 2022).
        tile: edge of the windows in pixels; None is the model's native size.
    """

    steps: int = 50
    sampler: SamplerName = "guided"
    guidance: float = 1.0
    text_guidance: float = 4.0
    part_loss: PartLoss = "auto"
    through: Literal["z0", "full"] = "z0"
    window: tuple[float, float] = (0.0, 1.0)
    repeats: int = 1
    start: Literal["noise", "photo"] = "noise"
    strength: float = 1.0
    tile: int | None = None

    def __post_init__(self) -> None:
        ok = 1 <= self.steps <= LARGEST_STEPS
        check(ok, "steps", self.steps, f"from 1 to {LARGEST_STEPS}")
        names = get_args(SamplerName)
        check(self.sampler in names, "sampler", self.sampler, f"one of {', '.join(names)}")
        for name in ("guidance", "text_guidance"):
            got = getattr(self, name)
            check(math.isfinite(got) and got >= 0, name, got, "0 or more, and finite")
        low, high = self.window
        check(0 <= low <= high <= 1, "window", self.window, "two numbers in [0, 1], in order")
        check_least(self, 1, "repeats")
        check(0 < self.strength <= 1, "strength", self.strength, "above 0, and 1 at most")
        ok = self.strength == 1 or (self.start == "photo" and self.sampler != "unipc")
        check(ok, "strength", self.strength, "1 but for a start from the photo without unipc")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What guides a model besides the image; the first dimension of every tensor is the batch.

    Attributes:
        maps: name → [b, c, h, w] at the size of the image; each tile gets its own part.
        tokens: name → [b, q, d], such as a prompt; the same for every tile of an image.
        sampling: how a model of many steps samples.
        seed: of the noise that a model draws.
        watch: called after each step of a sampling; the preview is [b, 3, h, w] in [0, 1].
        people: boxes (x0, y0, x1, y1) in pixels of the image, each of which a guidance looks at by
            itself where the image is larger than the model's native size; none is the whole image.
    """

    maps: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    watch: PreviewStep | None = None
    people: tuple[tuple[int, int, int, int], ...] = ()

    def part(self, at: slice) -> Conditions:
        """Those of a part of the batch."""
        return self._each(lambda tensor: tensor[at])

    def to(self, device: str | torch.device) -> Conditions:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        return replace(
            self,
            maps={name: change(tensor) for name, tensor in self.maps.items()},
            tokens={name: change(tensor) for name, tensor in self.tokens.items()},
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


@runtime_checkable
class ArrayModel(Protocol):
    """A model that runs without torch (`hbr.models.graphs`); nothing guides it but the image."""

    @property
    def capabilities(self) -> Capabilities:
        """What it supports."""

    @property
    def device(self) -> str:
        """Where it runs, by name."""

    @property
    def dtype(self) -> str:
        """Precision of its weights, by name."""

    @property
    def backend(self) -> Backend:
        """What runs it."""

    def restore_arrays(self, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
        """Restore tiles, each by itself; as `Model.restore` on [b, 3, t_h, t_w]."""


class PromptedModel(Model, Protocol):
    """A model whose `capabilities.takes_prompt` is true."""

    def embed(self, text: str) -> Tensor:
        """The prompt of a text, [1, q, d], for `Conditions.tokens["prompt"]`."""


class SamplingModel(PromptedModel, Protocol):
    """A model whose `capabilities.samples` is true.

    Its `restore` takes the whole result of the first stage as one tile, and `Conditions.maps` of
    the names in `capabilities.maps`.
    """

    @property
    def first(self) -> Model:
        """The first stage, which removes the damage; what it makes is what the second one sees."""

    def attention(self, image: Tensor) -> Tensor | None:
        """The map of bodies [b, 1, h, w] in [0, 1] of an image [b, 3, h, w]; None if it cannot."""


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
