"""How a photo is restored, and how it was: the settings, and the provenance of a result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from hbr.config import ConfigError, check, check_least
from hbr.image import DEFAULT_MAX_PIXELS
from hbr.models.protocol import COLOR_FIXES, Backend, ColorFix, Sampling

SCALES = (0.25, 8.0)
LARGEST_REDUCTION = 8.0

NOBODY = "nobody"
NO_OUTLINES = "none"

Gate = Literal["auto", "off"]
PeopleMode = Literal["off", "auto", "only"]
IdentityMode = Literal["off", "warn", "keep"]
_CHOICES = {
    "color": ("auto", *COLOR_FIXES),
    "gate": get_args(Gate),
    "people": get_args(PeopleMode),
    "identity": get_args(IdentityMode),
}

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
class PeopleChoice:
    """Which people of a photo are restored for themselves, and what becomes of the rest.

    Attributes:
        source: where people are found: "auto" is the best detector whose weights are here; else a
            detector (`hbr.people.detectors.load_detector`), a file of boxes
            (`hbr.restoration.people.locating`), or `NOBODY`.
        boxes: (x, y, width, height) in pixels of the upright photo, in place of `source`.
        persons: the numbers of those who are restored; () is all. People are numbered from 1, from
            left to right; `boxes` in their order.
        fidelity: (number of a person, fidelity), for models with two ends; the others have that of
            the model.
        outlines: what tells which pixels are a person's, where a source does not: "auto" is
            MediaPipe's selfie network where its weights are, else the box; "none" is the box; else
            a model (`hbr.people.segmentation.load_person_segmenter`).
        background: what becomes of all else: "model" restores it, "keep" leaves it as it is, and a
            name or file is another model that restores it.
    """

    source: str = "auto"
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    persons: tuple[int, ...] = ()
    fidelity: tuple[tuple[int, float], ...] = ()
    outlines: str = "auto"
    background: str = "model"

    def __post_init__(self) -> None:
        check(bool(self.source), "people_from", self.source, "auto, a detector or a file")
        for box in self.boxes:
            ok = len(box) == 4 and all(map(math.isfinite, box)) and min(box[2:]) > 0
            check(ok, "box", box, "x, y, width and height, the last two above 0")
        numbers = (*self.persons, *(number for number, _ in self.fidelity))
        ok = all(_is_whole(number) and number >= 1 for number in numbers)
        check(ok, "person", numbers, "numbers from 1")
        for number, fidelity in self.fidelity:
            expected = "a number in [0, 1] for each person"
            check(0 <= fidelity <= 1, "person_fidelity", f"{number}={fidelity}", expected)
        check(bool(self.outlines), "outlines", self.outlines, "auto, none or a model")
        check(bool(self.background), "background", self.background, "model, keep or a model's name")

    @property
    def must_find(self) -> bool:
        """Whether restoring the whole photo, where nobody can be looked for, is not what is asked.

        So it is if somebody is chosen, or the background is not restored by the model.
        """
        return bool(self.persons or self.fidelity) or self.background != "model"


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
            (`hbr.restoration.pixels.enlargement`), f / scale at most. None is f / scale.
        tile: edge of the tiles in pixels, 0 for the whole photo at once, or "auto", near the size
            that the model was trained on (`hbr.restoration.passes.tiling.plan_tiles`).
        color: where the colours come from: "wavelet" takes the low frequencies of the photo,
            "adain" the mean and deviation of each of its channels, "none" keeps the model's, and
            "auto" is what the model asks for (`hbr.models.Capabilities.color`).
        color_map: gives the colours in place of `color`, as for the frames of a video
            (`hbr.restoration.batch.frames`).
        batch: tiles per batch, or "auto": 1 on the CPU, more on CUDA.
        seed: for models that draw random numbers.
        gate: "auto" leaves a photo that needs nothing as it is, and tells of one that is damaged
            beyond what the models were trained on (`restoration.pixels.gate`); "off" restores every
            photo unseen. A photo that is resized is always restored. People who are restored for
            themselves are judged each by themselves, and the background by the whole photo.
        people: whether people are found and restored for themselves (`hbr.restoration.people`):
            "off", "auto", or "only", which leaves all else as it is. "auto" is "off" where there is
            no detector, unless `choice` asks for more (`PeopleChoice.must_find`).
        choice: which people, and what becomes of the rest; without a meaning where `people` is off.
        identity: "warn" compares every face with itself, before and after, and tells of one that
            may have become another person's; "keep" restores such a face once more, at the faithful
            end of the model (`hbr.restoration.people.guarding`). "off" looks at none.
        prompt: a text in place of the prompt that the model makes of the image, for models that
            take one (`hbr.models.Capabilities.takes_prompt`).
        pose, attention: maps for models that are guided by them: "auto" finds them, "none" leaves
            them blank; else a file (`hbr.restoration.passes.structure`).
        sampling: how a model of many steps samples; None is `hbr.models.protocol.Sampling()`.
        grain: how much of the photo's own grain is put back into the restored picture, 0 (none) to
            1 (all), see `hbr.restoration.pixels.grain`.
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
    people: PeopleMode = "off"
    choice: PeopleChoice = PeopleChoice()
    identity: IdentityMode = "off"
    prompt: str | None = None
    pose: str = "auto"
    attention: str = "auto"
    sampling: Sampling | None = None
    grain: float = 0.0
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __post_init__(self) -> None:
        check_scale(self.scale)
        for field, known in _CHOICES.items():
            value = getattr(self, field)
            check(value in known, field, value, f"one of {', '.join(known)}")
        ok = self.size is None or (_is_whole(self.size) and self.size >= 1 and self.scale == 1)
        check(ok, "size", self.size, "a whole number from 1, without a scale")
        ok = self.reduce in (None, "auto") or _is_factor(self.reduce)
        check(ok, "reduce", self.reduce, f"auto, or a factor from 1 to {LARGEST_REDUCTION:g}")
        ok = self.tile == "auto" or (_is_whole(self.tile) and self.tile >= 0)
        check(ok, "tile", self.tile, "auto or a whole number from 0")
        ok = self.batch == "auto" or (_is_whole(self.batch) and self.batch >= 1)
        check(ok, "batch", self.batch, "auto or 1 or more")
        check(_is_whole(self.seed), "seed", self.seed, "a whole number")
        ok = self.people != "only" or self.choice.background in ("model", "keep")
        expected = "keep, as people only are restored, or people must be auto"
        check(ok, "background", self.choice.background, expected)
        # bytes of a command line that are not UTF-8 come as surrogates
        ok = self.prompt is None or not any("\ud800" <= c <= "\udfff" for c in self.prompt)
        check(ok, "prompt", ascii(self.prompt), "text in Unicode")
        check(0 <= self.grain <= 1, "grain", self.grain, "0 to 1")
        check_least(self, 1, "max_pixels")

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


class PersonProvenance(TypedDict):
    """A person who was found, and what was done.

    Attributes:
        number: from 1.
        box: x, y, width, height in pixels of the upright photo, rounded to tenths.
        score: the detector's, in [0, 1]; 1 for boxes that were given.
        outline: whether a segmentation says which pixels are the person's; else the box does.
        done: "crop", as a square at the model's size; "tiles", at the photo's resolution;
            "background", as all around, or as it was where that is kept; or "left as it is", where
            the gate says so.
        size: edge of the square that the model saw in pixels, of a crop; else None.
        fidelity: between the two ends of the model; None if it has one, or the model did not run.
        gate: what the gate says of the person (`gate.Verdict`); None if not asked.
        gate_reasons: in what the person is beyond the model.
    """

    number: int
    box: tuple[float, float, float, float]
    score: float
    outline: bool
    done: str
    size: int | None
    fidelity: float | None
    gate: str | None
    gate_reasons: tuple[str, ...]


class PeopleProvenance(TypedDict):
    """The people of a photo, and what was done.

    Attributes:
        mode: "auto" or "only".
        source: the detector, the name of the file of boxes, or "boxes given".
        background: "model", "keep", or the name of another model.
        outlines: the segmentation that was asked, or "none".
        found: everyone, by number.
    """

    mode: PeopleMode
    source: str
    background: str
    outlines: str
    found: tuple[PersonProvenance, ...]


class FaceProvenance(TypedDict):
    """A face that was compared with itself, before and after.

    Attributes:
        box: x, y, width, height in pixels of the upright photo, rounded to tenths.
        distance: between its embeddings; None where it cannot be known
            (`hbr.people.identity.IdentityChange`).
        same: whether it is still the same person's; None where that cannot be known.
        faithful: whether it was restored once more, at the faithful end of the model.
    """

    box: tuple[float, float, float, float]
    distance: float | None
    same: bool | None
    faithful: bool


class DecoderProvenance(TypedDict):
    """The decoder in place of a model's own: its catalogued name or file, and the file's hash."""

    name: str
    sha256: str


class Provenance(TypedDict):
    """What it takes to make the same bytes again, as plain values.

    Attributes:
        hbr, torch: versions; no torch where the model ran without it.
        model, sha256: name of the model, and the hash of its file if it has one.
        fidelity: between the two ends of the model; None if it has one.
        decoder: in place of the model's own; None if it was that.
        device, dtype: where it ran, and in what precision.
        backend: what ran the model; `fallback` says why, where another one was asked for, or
            where no CUDA graph could be recorded.
        rewrites: how it was rewritten before that (`hbr.models.inference.folding.REWRITES`), and
            whether runs are recorded (`hbr.models.inference.recorded.REWRITE`).
        tile, overlap: (height, width) in pixels, after any retreat when memory ran out.
        tiles, batch: their number, and how many were restored at a time.
        gate: what the gate says of the photo (`gate.Verdict`), "nothing to restore"
            where it was left as it is, with no tiles; None if it was not asked.
        gate_score: how likely the photo is damaged, 0 to 1; None where that cannot be told.
        gate_reasons: in what the photo is beyond the model.
        reduce: by how much the photo was made smaller for a network that enlarges; None where
            `scale` says it.
        people: who was restored for themselves, and how (`PeopleProvenance`); None if nobody was
            looked for.
        faces: what became of them (`FaceProvenance`); None if they were not compared.
        structure: where each map that guides the model comes from; None for other models.
        sampling: of a model of many steps, else None.
        scale, size, color, color_map, grain, seed, prompt: as in `RestoreSettings`; `color` is
            never "auto".
    """

    hbr: str
    torch: str | None
    model: str
    sha256: str | None
    fidelity: float | None
    decoder: DecoderProvenance | None
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
    grain: float
    seed: int
    prompt: str | None
    people: PeopleProvenance | None
    faces: tuple[FaceProvenance, ...] | None
    structure: Mapping[str, str] | None
    sampling: Mapping[str, Any] | None


def parse_box(text: str) -> tuple[float, float, float, float]:
    """A box from its text, `x,y,width,height` in pixels.

    Raises:
        ConfigError: it is none.
    """
    try:
        x, y, width, height = map(float, text.split(","))
    except ValueError:
        raise ConfigError(f"box is {text!r}; it must be x,y,width,height in pixels") from None
    return x, y, width, height


def parse_persons(text: str) -> tuple[int, ...]:
    """Numbers of people from their text, `1,3`.

    Raises:
        ConfigError: it is none.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"person is {text!r}; it must be numbers of people, as 1,3") from None


def parse_person_fidelity(text: str) -> tuple[tuple[int, float], ...]:
    """Fidelities of people by number from their text, `1=0.8,3=0`.

    Raises:
        ConfigError: it is none.
    """
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return tuple((int(number), float(value)) for number, value in pairs)
    except ValueError:
        expected = "numbers and fidelities, as 1=0.8,3=0"
        raise ConfigError(f"person_fidelity is {text!r}; it must be {expected}") from None


def check_scale(scale: float) -> None:
    """Raise `ConfigError` unless a photo may be resized by this much."""
    low, high = SCALES
    check(low <= scale <= high, "scale", scale, f"{low} to {high:.0f}")


def _is_factor(value: object) -> bool:
    number = isinstance(value, float | int) and not isinstance(value, bool)
    return number and 1 <= value <= LARGEST_REDUCTION  # type: ignore[operator]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
