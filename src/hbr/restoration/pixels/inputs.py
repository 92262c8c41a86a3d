"""Converting any kind of picture to a `Photo`, and resizing it for the model.

Shapes: h w pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
import PIL.Image
from einops import rearrange
from numpy.typing import NDArray

from hbr.image import DEFAULT_MAX_PIXELS, Photo, read_photo
from hbr.image.pixels import FLOAT_ROUNDING
from hbr.restoration.pixels.enlargement import estimate_enlargement
from hbr.restoration.settings import RestoreSettings

if TYPE_CHECKING:
    from torch import Tensor

Pixels = TypeVar("Pixels", bound=NDArray[np.uint8] | NDArray[np.uint16])

PhotoLike: TypeAlias = "str | Path | IO[bytes] | PIL.Image.Image | NDArray[Any] | Tensor | Photo"


def as_photo(source: PhotoLike, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Photo:
    """Convert a path, file, PIL image, array or tensor to a `Photo`.

    Args:
        source: a path of a file; a binary file, as `io.BytesIO`; a PIL image of any mode; an array
            [h, w] or [h, w, 1 to 4] of uint8, uint16 or floats in [0, 1]; a tensor [3, h, w] or
            [1, 3, h, w] of floats in [0, 1]; or a photo. Floats become 16 bits.
        max_pixels: larger files are refused.

    Raises:
        hbr.image.PhotoError: the file or PIL image cannot be read.
        ValueError: the type, shape or range is another, or values are NaN or infinite.
    """
    if isinstance(source, Photo):
        return source
    if isinstance(source, str | Path):
        return read_photo(source, max_pixels=max_pixels)
    if isinstance(source, PIL.Image.Image):
        return Photo.from_pil(source)
    if (torch := sys.modules.get("torch")) and isinstance(source, torch.Tensor):
        return _of_tensor(source)
    if isinstance(source, np.ndarray):
        if source.dtype.kind == "f":
            _check_range("array", source)
        return Photo.from_array(source, bits=16 if source.dtype.kind == "f" else 8)
    if hasattr(source, "read"):
        return read_photo(cast("IO[bytes]", source), max_pixels=max_pixels)
    raise ValueError(
        f"the photo is a {type(source).__name__}; "
        "it must be a path, a binary file, a PIL image, an array, a tensor or a Photo"
    )


def resized_pixels(
    photo: Photo, settings: RestoreSettings
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The photo's pixels [h, w, 3] at the size of the result, by antialiased bicubic resampling.

    Raises:
        ValueError: the result is enlarged too much, or larger than `max_pixels`.
    """
    height, width = settings.result_size(photo.size)
    if (height, width) == photo.size:
        return photo.pixels
    if height > photo.size[0] and height * width > settings.max_pixels:
        asked = f"scale {settings.scale:g}" if settings.size is None else f"size {settings.size}"
        raise ValueError(
            f"at {asked} the photo has {width}×{height} pixels, more than {settings.max_pixels}; "
            "use a smaller one or a larger limit (--max-pixels)"
        )
    return resized_to(photo.pixels, height, width)


def seen_pixels(
    photo: Photo,
    pixels: NDArray[np.uint8] | NDArray[np.uint16],
    settings: RestoreSettings,
    factor: int,
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], float | None]:
    """What a network that enlarges `factor` times sees of a photo, on the grid of its result.

    With `settings.reduce` it sees the photo made smaller by that. Without, at `factor` times the
    photo's size it sees the photo itself, and at any other size the result's size divided by
    `factor`: a photo that is not enlarged is made smaller first.

    `pixels` [h, w, 3] are at the size of the result (`resized_pixels`).

    Returns:
        [H, W, 3], multiples of `factor`: each pixel that the network sees is repeated `factor`
        times each way; and `settings.reduce`, as a number where it was "auto".

    Raises:
        ValueError: the network's result would be larger than `settings.max_pixels`.
    """
    reduce = settings.reduce
    if reduce == "auto":
        most = max(1.0, factor * max(photo.size) / max(pixels.shape[:2]))
        reduce = min(estimate_enlargement(photo.pixels), most)
    if reduce is not None:
        h, w = (max(1, round(edge / reduce)) for edge in photo.size)
        if h * w * factor**2 > settings.max_pixels:
            raise ValueError(
                f"reduced by {reduce:g} and enlarged {factor} times the photo has "
                f"{w * factor}×{h * factor} pixels, more than {settings.max_pixels}; reduce it "
                "more (--reduce) or use a larger limit (--max-pixels)"
            )
        seen = photo.pixels if (h, w) == photo.size else resized_to(photo.pixels, h, w)
    elif factor == 1:
        return pixels, None
    elif pixels.shape[:2] == tuple(factor * edge for edge in photo.size):
        seen = photo.pixels
    else:
        h, w = pixels.shape[:2]
        padded = cast(
            NDArray[np.uint8] | NDArray[np.uint16],
            np.pad(pixels, ((0, -h % factor), (0, -w % factor), (0, 0)), mode="edge"),
        )
        seen = resized_to(padded, padded.shape[0] // factor, padded.shape[1] // factor)
    return seen.repeat(factor, axis=0).repeat(factor, axis=1), reduce


def resized_to(pixels: Pixels, height: int, width: int) -> Pixels:
    """[h, w, 3] → [height, width, 3] by antialiased bicubic resampling."""
    if pixels.dtype == np.uint8:
        image = PIL.Image.fromarray(pixels)
        small = np.asarray(image.resize((width, height), PIL.Image.Resampling.BICUBIC))
        return cast(Pixels, small)
    # Pillow has no RGB of 16 bits, but it resizes a plane of floats.
    white = np.iinfo(np.uint16).max
    out = np.empty((3, height, width), np.uint16)
    for plane, into in zip(rearrange(pixels, "h w c -> c h w"), out, strict=True):
        image = PIL.Image.fromarray(plane.astype(np.float32))
        resized = image.resize((width, height), PIL.Image.Resampling.BICUBIC)
        into[...] = np.rint(np.clip(np.asarray(resized), 0, white))
    return cast(Pixels, np.ascontiguousarray(rearrange(out, "c h w -> h w c")))


def _of_tensor(tensor: Tensor) -> Photo:
    if not tensor.is_floating_point():
        raise ValueError(f"the tensor is {tensor.dtype}; it must be floats in [0, 1]")
    if tensor.ndim not in (3, 4):
        raise ValueError(
            f"the tensor is {list(tensor.shape)}; it must be [3, h, w] or [1, 3, h, w]"
        )
    plain = tensor.detach().cpu().float()
    _check_range("tensor", plain.numpy())
    return Photo.from_tensor(plain, bits=16)


def _check_range(what: str, values: NDArray[Any]) -> None:
    if values.size == 0:
        return  # `Photo` names the shape
    low, high = float(values.min()), float(values.max())
    if not np.isfinite((low, high)).all():
        raise ValueError(f"the {what} contains values that are not numbers (NaN or infinite)")
    if low < -FLOAT_ROUNDING or high > 1 + FLOAT_ROUNDING:
        raise ValueError(
            f"the {what} has values from {low:g} to {high:g}; floats must be in [0, 1]"
        )
