"""`Photo`: pixels and metadata."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hbr.image.colorimetry import SRGB, Signals, Stated, exif_signals, stated_profile
from hbr.image.colour import Profile, ProfileError, load_profile
from hbr.image.kept import pil_metadata
from hbr.image.metadata import (
    StoredMetadata,
    bare_exif,
    exif_orientation,
    usable_dpi,
    xmp_orientation,
)
from hbr.image.notes import Notes
from hbr.image.pillow import no_pillow_limit, pil_channels
from hbr.image.pixels import (
    fill_hidden,
    luma,
    on_white,
    peak,
    quantize,
    resize,
    strips,
    to_8_bits,
    turn_upright,
)
from hbr.image.untrue import Renewal, renewed_exif, renewed_xmp

if TYPE_CHECKING:
    import PIL.Image
    import torch

MODES = ("rgb", "grey", "palette", "cmyk")


@dataclass(frozen=True, eq=False, kw_only=True)
class Photo:
    """A photograph, upright, in sRGB, at the depth of its file.

    Attributes:
        pixels: [h, w, 3] uint8 or uint16, RGB in sRGB, also of a grey photo. Where alpha is 0 they
            are filled from their visible surroundings.
        alpha: [h, w] of the same type, straight (not premultiplied), or None.
        mode: of the file: `rgb`, `grey`, `palette` or `cmyk`. Grey is written as grey, all
            others as RGB.
        icc: the embedded profile, into which the pixels are converted back when written.
        exif: EXIF as a bare TIFF structure, orientation 1.
        xmp: XMP packet, orientation 1.
        dpi: (x, y) in dots per inch.
        photoshop: Photoshop's image resources, IPTC among them.
        comments: of a JPEG.
        texts: keywords and texts of a PNG.
        lost: what else the file holds that cannot be kept, in words.
        orientation: 1 to 8 as in EXIF: how the pixels of the file were turned to be upright.
        format: `jpeg`, `png`, `tiff`, `webp`, `avif`, `bmp`, `heic` or `jxl`; None if it came from
            memory.
        path: the file it came from, if any.
        lossless: whether it came as a lossless WebP.
        avif_bits: 10 or 12 if it came as an AVIF of so many bits, and is written as one; else 8.
        warnings: what was guessed, or damaged, when it was read.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    mode: str = "rgb"
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    photoshop: bytes | None = None
    comments: tuple[bytes, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()
    lost: tuple[str, ...] = ()
    orientation: int = 1
    format: str | None = None
    path: Path | None = None
    lossless: bool = False
    avif_bits: int = 8
    warnings: tuple[str, ...] = ()
    # The pixels in the space of `icc`, beside the sRGB pixels that they belong to: a photo that is
    # only read and written loses nothing. Replaced pixels are recognised by identity.
    _own: tuple[np.ndarray, np.ndarray] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        p, a = self.pixels, self.alpha
        if p.ndim != 3 or p.shape[2] != 3 or 0 in p.shape or p.dtype not in (np.uint8, np.uint16):
            raise ValueError(
                f"pixels are {p.dtype} {list(p.shape)}; they must be uint8 or uint16 [h, w, 3]"
            )
        if a is not None and (a.shape != p.shape[:2] or a.dtype != p.dtype):
            raise ValueError(
                f"alpha is {a.dtype} {list(a.shape)}; it must be {p.dtype} {list(p.shape[:2])}"
            )
        if self.mode not in MODES:
            raise ValueError(f"mode is {self.mode!r}; it must be one of {', '.join(MODES)}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def bits(self) -> int:
        """8 or 16."""
        return self.pixels.dtype.itemsize * 8

    def tensor(self) -> torch.Tensor:
        """[1, 3, h, w] float32 in [0, 1], RGB in sRGB, as every network here takes it."""
        import torch

        out = np.empty((1, 3, *self.size), np.float32)
        white = np.float32(peak(self.pixels.dtype))
        for c in range(3):
            np.divide(self.pixels[..., c], white, out=out[0, c], dtype=np.float32)
        return torch.from_numpy(out)

    def pil(self) -> PIL.Image.Image:
        """An 8-bit PIL image in sRGB, `RGB` or `RGBA`."""
        from PIL import Image

        if self.alpha is None:
            return Image.fromarray(to_8_bits(self.pixels))
        return Image.fromarray(to_8_bits(np.dstack([self.pixels, self.alpha])))

    def displayed(self) -> Photo:
        """The photo as metrics compare it: 8 bits, transparent pixels on white."""
        seen = self.pixels if self.alpha is None else on_white(self.pixels, self.alpha)
        return dataclasses.replace(self, pixels=to_8_bits(seen), alpha=None, _own=None)

    def as_rgb(self) -> Photo:
        """The same photo, to be written in colour even if it was grey (its profile then goes)."""
        if self.mode != "grey":
            return self
        return dataclasses.replace(self, mode="rgb", icc=None, _own=None)

    def with_pixels(self, pixels: np.ndarray | torch.Tensor) -> Photo:
        """This photo with its pixels replaced by a restored image of the same or another size.

        Alpha is resized, the size in the EXIF is updated, everything else is kept. A grey photo
        stays grey. The result is rounded to the depth of the source. In a photo with a wide-gamut
        profile, the part of its colours that sRGB clipped is added back.

        Args:
            pixels: [..., 3, h, w] with leading dimensions of 1, RGB in sRGB, floats in [0, 1];
                other values are clipped.

        Raises:
            ValueError: another shape, or values that are not numbers.
        """
        planes = _planes(pixels)
        height, width = planes.shape[1:]
        dtype = self.pixels.dtype
        profile = self._profile()
        old = None if profile is None else resize(self._in_profile(), height, width)
        new = np.empty((height, width, 3), dtype)
        change = Renewal(1, self.size, (height, width))
        own = None if old is None else np.empty_like(new)
        for rows in strips(height, width):
            strip = _finite(np.moveaxis(_numpy(planes[:, rows]), 0, -1))
            if self.mode == "grey":
                grey = strip @ np.array([0.299, 0.587, 0.114], np.float32)
                strip = np.repeat(grey[..., None], 3, axis=-1)
            new[rows] = quantize(strip, dtype)
            if profile is not None and old is not None and own is not None:
                own[rows] = quantize(_to_profile(profile, strip, old[rows]), dtype)
        return dataclasses.replace(
            self,
            pixels=new,
            alpha=None if self.alpha is None else resize(self.alpha, height, width),
            exif=renewed_exif(self.exif, change) if self.exif else None,
            xmp=renewed_xmp(self.xmp, change)[0] if self.xmp else None,
            _own=None if own is None else (new, own),
        )

    def encoded(self, *, with_icc: bool = True) -> tuple[np.ndarray, bytes | None]:
        """The pixels as they are written to a file, and their profile.

        Args:
            with_icc: whether the file can hold the profile; if not, these are the sRGB pixels.

        Returns:
            [h, w, 3] or, of a grey photo, [h, w]; and the profile or None.
        """
        pixels = self._in_profile() if with_icc else self.pixels
        return (luma(pixels) if self.mode == "grey" else pixels), self.icc if with_icc else None

    @classmethod
    def from_array(cls, array: np.ndarray, *, bits: int = 8) -> Photo:
        """A photo of an array in sRGB.

        Args:
            array: [h, w] or [h, w, 1] grey, [h, w, 2] grey and alpha, [h, w, 3] RGB or [h, w, 4]
                RGB and alpha; uint8, uint16, bool, or floats in [0, 1], which are clipped.
            bits: the depth of floats, 8 or 16.

        Raises:
            ValueError: another shape or type, or values that are not numbers.
        """
        array = np.asarray(array)
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4) or 0 in array.shape:
            raise ValueError(
                f"the array is {list(array.shape)}; it must be [h, w] or [h, w, 1 to 4]"
            )
        if bits not in (8, 16):
            raise ValueError(f"bits is {bits!r}; it must be 8 or 16")
        if array.dtype.kind == "f":
            target = np.dtype(np.uint8 if bits == 8 else np.uint16)
            array = quantize(_finite(array.astype(np.float32)), target)
        elif array.dtype.kind == "b":
            array = array.astype(np.uint8) * np.uint8(255)
        elif array.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"the array is {array.dtype}; it must be uint8, uint16 or floats")
        return assemble(array)

    @classmethod
    def from_pil(cls, image: PIL.Image.Image) -> Photo:
        """A photo of a PIL image of any mode, with its EXIF orientation applied and its profile.

        Raises:
            PhotoError: a mode that holds no photograph (LAB, 32-bit).
        """
        return photo_from_pil(image, Notes("the PIL image"))

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor, *, bits: int = 8) -> Photo:
        """A photo of [..., 3, h, w] floats in [0, 1] (leading dimensions of 1), RGB in sRGB.

        Raises:
            ValueError: another shape, or values that are not numbers.
        """
        return cls.from_array(np.moveaxis(_numpy(_planes(tensor)), 0, -1), bits=bits)

    def _profile(self) -> Profile | None:
        """The conversion between `icc` and sRGB; None where there is nothing to convert."""
        if self.icc is None:
            return None
        try:
            return load_profile(self.icc, "GRAY" if self.mode == "grey" else "RGB")
        except ProfileError:
            return None

    def _in_profile(self) -> np.ndarray:
        """[h, w, 3] in the space of `icc`."""
        profile = self._profile()
        if profile is None:
            return self.pixels
        if self._own is not None and self._own[0] is self.pixels:
            return self._own[1]
        own = np.empty_like(self.pixels)
        white = np.float32(peak(own.dtype))
        for rows in strips(*self.size):
            srgb = self.pixels[rows].astype(np.float32) / white
            own[rows] = quantize(profile.from_srgb(srgb), own.dtype)
        return own


def assemble(
    channels: np.ndarray, mode: str = "rgb", *, space: Stated = SRGB, **kept: Any
) -> Photo:
    """Build a `Photo` from upright channels as they were in the file.

    Args:
        channels: [h, w, c] uint8 or uint16: grey, grey and alpha, RGB, or RGB and alpha.
        mode: of three or four channels, one of `MODES`; one or two are grey.
        space: of the channels; its profile is one that `load_profile` takes.
        **kept: further fields of `Photo`.
    """
    grey = channels.shape[2] < 3
    mode = "grey" if grey else mode
    alpha = np.ascontiguousarray(channels[..., -1]) if channels.shape[2] in (2, 4) else None
    own = np.repeat(channels[..., :1], 3, axis=2) if grey else channels[..., :3]
    own = np.ascontiguousarray(own)
    if alpha is not None:
        own = fill_hidden(own, alpha)
    profile = load_profile(space.icc, "GRAY" if grey else "RGB") if space.icc else None
    if profile is None:
        return Photo(pixels=own, alpha=alpha, mode=mode, icc=space.icc or None, **kept)
    pixels = np.empty_like(own)
    for rows in strips(*own.shape[:2]):
        pixels[rows] = quantize(profile.to_srgb(own[rows]), own.dtype)
    if not space.stays:
        return Photo(pixels=pixels, alpha=alpha, mode=mode, **kept)
    return Photo(pixels=pixels, alpha=alpha, mode=mode, icc=space.icc, _own=(pixels, own), **kept)


def photo_from_pil(
    image: PIL.Image.Image,
    notes: Notes,
    signals: Signals | None = None,
    stored: StoredMetadata | None = None,
    **kept: Any,
) -> Photo:
    """A `Photo` of an open or loaded PIL image: pixels, EXIF, XMP, profile and resolution.

    Args:
        image: of any mode that holds a photograph.
        signals: what the file says of its colours, where Pillow does not know all of it.
        stored: its metadata, likewise.
        **kept: further fields of `Photo`.
    """
    with no_pillow_limit(image):
        channels, mode, keep_icc = pil_channels(image, notes)
    # only now: PNG allows EXIF and more after the pixels
    known = pil_metadata(image)
    signals = signals or Signals(icc=image.info.get("icc_profile") or known.icc)
    stored = stored or known
    return upright_photo(channels, mode, notes, stored, signals if keep_icc else None, **kept)


def upright_photo(
    channels: np.ndarray,
    mode: str,
    notes: Notes,
    stored: StoredMetadata,
    signals: Signals | None,
    **kept: Any,
) -> Photo:
    """Build a `Photo` from channels as they were stored: turned upright, with their metadata.

    Channels and mode are those of `assemble`; `notes` receives guesses and losses.

    Args:
        stored: the metadata; EXIF that is broken is dropped with a warning.
        signals: what the file says of its colours; None if the channels are sRGB already.
        **kept: further fields of `Photo`.
    """
    exif, xmp = bare_exif(stored.exif), stored.xmp
    if stored.exif and exif is None:
        notes.warn("its EXIF is broken and dropped")
    if signals is not None and signals.silent and exif:
        signals = exif_signals(exif)
    space = "GRAY" if channels.shape[2] < 3 else "RGB"
    orientation = stored.orientation or (exif and exif_orientation(exif))
    orientation = orientation or (xmp and xmp_orientation(xmp)) or 1
    dpi = usable_dpi(stored.dpi)
    if dpi and orientation > 4:
        dpi = dpi[::-1]
    upright = turn_upright(channels, orientation)
    change = Renewal(orientation, channels.shape[:2], upright.shape[:2])
    xmp, lost = renewed_xmp(xmp, change) if xmp else (None, set())
    return assemble(
        upright,
        mode,
        space=stated_profile(signals, space, notes) if signals else SRGB,
        exif=renewed_exif(exif, change) if exif else None,
        xmp=xmp,
        dpi=dpi,
        photoshop=stored.photoshop,
        comments=stored.comments,
        texts=stored.texts,
        lost=tuple(dict.fromkeys([*stored.lost, *sorted(lost)])),
        orientation=orientation,
        **kept,
    )


def _to_profile(profile: Profile, srgb: np.ndarray, old: np.ndarray) -> np.ndarray:
    """sRGB floats into the profile, with the part of the old colours that sRGB cannot hold."""
    clipped = old.astype(np.float32) / peak(old.dtype) - profile.from_srgb(profile.to_srgb(old))
    clipped[np.abs(clipped) < 2e-3] = 0  # the residue inside sRGB is rounding, not gamut
    return profile.from_srgb(np.clip(srgb, 0, 1)) + clipped


def _planes(pixels: Any) -> Any:
    """[..., 3, h, w] with leading ones → [3, h, w], still an array or tensor."""
    shape = tuple(pixels.shape)
    if len(shape) < 3 or shape[-3] != 3 or any(n != 1 for n in shape[:-3]) or 0 in shape:
        raise ValueError(f"the pixels are {list(shape)}; they must be [3, h, w] or [1, 3, h, w]")
    return pixels.reshape(shape[-3:])


def _numpy(part: Any) -> np.ndarray:
    if hasattr(part, "detach"):
        part = part.detach().float().cpu().numpy()
    return np.asarray(part, np.float32)


def _finite(values: np.ndarray) -> np.ndarray:
    if not np.isfinite(values).all():
        raise ValueError("the pixels hold values that are not numbers (NaN or infinite)")
    return values
