"""How a photo is restored, and how it was: the settings, and the provenance of a result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from hbr.config import check
from hbr.image import DEFAULT_MAX_PIXELS
from hbr.models.protocol import Backend, ColorFix, Sampling

COLOR_FIXES: tuple[ColorFix, ...] = get_args(ColorFix)
SCALES = (0.25, 8.0)
LARGEST_REDUCTION = 8.0

Gate = Literal["auto", "off"]
GATES: tuple[Gate, ...] = get_args(Gate)

TileChoice = int | Literal["auto"]


@dataclass(frozen=True)
class ColorMap:
    """A map of colours, the same for every pixel: gain times value plus offset, for each channel.

    Attributes:
        gain: of red, green and blue.
        offset: of the same, in units of the range [0, 1].
    """

    gain: tuple[float, float, float]
    offset: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How a photo is restored, whatever the model.

    Attributes:
        scale: size of the result over the photo's, 0.25 to 8. The photo is resized (antialiased
            bicubic) before it is restored. A network that enlarges f times sees the result's size
            divided by f: at scale f the photo itself.
        size: longer edge of the result in pixels, in place of a scale; at most 8 times the photo's.
        reduce: of a network that enlarges f times: the photo is made smaller by this factor, 1 to
            8, enlarged by the network, and resized (bicubic) to the size of the result. "auto" is
            the factor by which the photo seems to have been enlarged before
            (`hbr.restoration.enlargement`), f / scale at most. None is f / scale.
        tile: edge of the tiles in pixels, 0 for the whole photo at once, or "auto", near the size
            that the model was trained on (`hbr.restoration.tiling.plan_tiles`).
        color: where the colours come from: "wavelet" takes the low frequencies of the photo,
            "adain" the mean and deviation of each of its channels, "none" keeps the model's, and
            "auto" is what the model asks for (`hbr.models.Capabilities.color`).
        color_map: gives the colours in place of `color`, as for the frames of a video
            (`hbr.restoration.frames`).
        batch: tiles per batch, or "auto": 1 on the CPU, more on CUDA.
        seed: for models that draw random numbers.
        gate: "auto" leaves a photo that needs nothing as it is, and tells of one that is damaged
            beyond what the models were trained on (`hbr.restoration.gate`); "off" restores every
            photo unseen. A photo that is resized is always restored.
        prompt: a text in place of the prompt that the model makes of the image, for models that
            take one (`hbr.models.Capabilities.takes_prompt`).
        pose, attention: maps for models that are guided by them: "auto" finds them, "none" leaves
            them blank; else a file (`hbr.restoration.structure`).
        sampling: how a model of many steps samples; None is `hbr.models.protocol.Sampling()`.
        max_pixels: larger files, and larger results of enlarging, are refused.
    """

    scale: float = 1.0
    size: int | None = None
    reduce: float | Literal["auto"] | None = None
    tile: TileChoice = "auto"
    color: ColorFix | Literal["auto"] = "auto"
    color_map: ColorMap | None = None
    batch: int | Literal["auto"] = "auto"
    seed: int = 0
    gate: Gate = "off"
    prompt: str | None = None
    pose: str = "auto"
    attention: str = "auto"
    sampling: Sampling | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        """Check every field."""
        check_scale(self.scale)
        ok = self.size is None or (_is_whole(self.size) and self.size >= 1 and self.scale == 1)
        check(ok, "size", self.size, "a whole number from 1, without a scale")
        ok = self.reduce in (None, "auto") or _is_factor(self.reduce)
        check(ok, "reduce", self.reduce, f"auto, or a factor from 1 to {LARGEST_REDUCTION:g}")
        ok = self.tile == "auto" or (_is_whole(self.tile) and self.tile >= 0)
        check(ok, "tile", self.tile, "auto or a whole number from 0")
        fixes = ("auto", *COLOR_FIXES)
        check(self.color in fixes, "color", self.color, f"one of {', '.join(fixes)}")
        ok = self.batch == "auto" or (_is_whole(self.batch) and self.batch >= 1)
        check(ok, "batch", self.batch, "auto or 1 or more")
        check(_is_whole(self.seed), "seed", self.seed, "a whole number")
        check(self.gate in GATES, "gate", self.gate, f"one of {', '.join(GATES)}")
        check(self.max_pixels >= 1, "max_pixels", self.max_pixels, "1 or more")

    def result_size(self, photo: tuple[int, int]) -> tuple[int, int]:
        """(height, width) in pixels of the result of a photo of this (height, width).

        Raises:
            ValueError: the photo would be enlarged more than 8 times.
        """
        scale = self.scale if self.size is None else self.size / max(photo)
        if scale > SCALES[1]:
            height, width = photo
            raise ValueError(
                f"at size {self.size} the photo of {width}×{height} pixels would be enlarged "
                f"{scale:.3g} times, and {SCALES[1]:.0f} is the limit; use a smaller size"
            )
        height, width = (max(1, round(edge * scale)) for edge in photo)
        return height, width


class Provenance(TypedDict):
    """What it takes to make the same bytes again, as plain values.

    Attributes:
        hbr, torch: versions; no torch where the model ran without it.
        model, sha256: name of the model, and the hash of its file if it has one.
        fidelity: between the two ends of the model; None if it has one.
        device, dtype: where it ran, and in what precision.
        backend: what ran the model; `fallback` says why, where another one was asked for.
        rewrites: how it was rewritten before that (`hbr.models.inference.folding.REWRITES`).
        tile, overlap: (height, width) in pixels, after any retreat when memory ran out.
        tiles, batch: their number, and how many were restored at a time.
        gate: what the gate says of the photo (`hbr.restoration.gate.Verdict`), "nothing to restore"
            where it was left as it is, with no tiles; None if it was not asked.
        gate_score: how likely the photo is damaged, 0 to 1; None where that cannot be told.
        gate_reasons: in what the photo is beyond the model.
        reduce: by how much the photo was made smaller for a network that enlarges; None where
            `scale` says it.
        structure: where each map that guides the model comes from; None for other models.
        sampling: of a model of many steps, else None.
        scale, size, color, color_map, seed, prompt: as in `RestoreSettings`; `color` is never
            "auto".
    """

    hbr: str
    torch: str | None
    model: str
    sha256: str | None
    fidelity: float | None
    device: str
    dtype: str
    backend: Backend
    fallback: str | None
    rewrites: tuple[str, ...]
    tile: tuple[int, int]
    overlap: tuple[int, int]
    tiles: int
    batch: int
    gate: str | None
    gate_score: float | None
    gate_reasons: tuple[str, ...]
    scale: float
    size: int | None
    reduce: float | None
    color: ColorFix
    color_map: Mapping[str, Any] | None
    seed: int
    prompt: str | None
    structure: Mapping[str, str] | None
    sampling: Mapping[str, Any] | None


def check_scale(scale: float) -> None:
    """Raise `ConfigError` unless a photo may be resized by this much."""
    low, high = SCALES
    check(low <= scale <= high, "scale", scale, f"{low} to {high:.0f}")


def _is_factor(value: object) -> bool:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    return number and 1 <= value <= LARGEST_REDUCTION  # type: ignore[operator]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
