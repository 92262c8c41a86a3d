"""Pillow images as arrays: the channels of every mode that holds a photograph.

Shapes: h w an image, c its channels.
"""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import cast

import numpy as np
from PIL import Image, ImageFile

from hbr.errors import PhotoError, one_line
from hbr.image.notes import Notes
from hbr.image.pixels import strips


def pil_channels(image: Image.Image, notes: Notes) -> tuple[np.ndarray, str, bool]:
    """[h, w, c] of a PIL image, its mode, and whether its profile still applies to them."""
    mode = image.mode
    alpha = "A" if "transparency" in image.info or mode[-1] in "Aa" else ""
    if mode in ("1", "L", "LA", "La"):
        return _array(_convert(image, f"L{alpha}")), "grey", True
    if mode.startswith("I;16"):
        array = np.asarray(image).astype(np.uint16)
        return array[..., None], "grey", True
    if mode in ("P", "PA"):
        return _array(_convert(image, f"RGB{alpha}")), "palette", True
    if mode in ("RGB", "RGBA", "RGBa", "RGBX"):
        return _array(_convert(image, f"RGB{alpha}")), "rgb", True
    if mode == "YCbCr":
        return _array(_convert(image, "RGB")), "rgb", True
    if mode == "CMYK":
        return _array(_cmyk_to_srgb(image, notes)), "cmyk", False
    raise PhotoError(f"{notes.name}: holds {mode} pixels, which are not read; save it as RGB")


def _convert(image: Image.Image, target: str) -> Image.Image:
    if image.mode == target:
        image.load()
        return image
    if image.mode == "La":
        # Pillow can undo premultiplied alpha only in RGB.
        image = Image.merge("RGBa", [*[image.getchannel(0)] * 3, image.getchannel(1)])
        return image.convert("RGBA").convert("LA")
    return image.convert(target)


def _cmyk_to_srgb(image: Image.Image, notes: Notes) -> Image.Image:
    from PIL import ImageCms

    from hbr.image.press import press_profile

    image.load()
    if icc := image.info.get("icc_profile"):
        try:
            return _through_profile(image, icc)
        except (ImageCms.PyCMSError, OSError, ValueError) as error:
            notes.warn(f"its colour profile is dropped: {one_line(error, 200)}")
    notes.warn("its CMYK has no profile; taken as offset printing on coated paper")
    return _through_profile(image, press_profile())


def _through_profile(image: Image.Image, icc: bytes) -> Image.Image:
    from PIL import ImageCms

    converted = ImageCms.profileToProfile(
        image,
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return cast(Image.Image, converted)


def _array(image: Image.Image) -> np.ndarray:
    """[h, w, c] uint8 of a loaded image, by strips: Pillow's own conversion holds three copies."""
    width, height = image.size
    out = np.empty((height, width, len(image.getbands())), np.uint8)
    for rows in strips(height, width):
        part = image.crop((0, rows.start, width, rows.stop))
        out[rows] = np.asarray(part).reshape(-1, width, out.shape[2])
    return out


_LOCKS = {name: threading.Lock() for name in ("LOAD_TRUNCATED_IMAGES", "MAX_IMAGE_PIXELS")}


@contextlib.contextmanager
def _setting(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """Change a setting of Pillow, which counts for the whole process, in one thread at a time."""
    with _LOCKS[name]:
        before = getattr(module, name)
        setattr(module, name, value)
        try:
            yield
        finally:
            setattr(module, name, before)


def lenient(notes: Notes) -> contextlib.AbstractContextManager[None]:
    """Let Pillow stop at broken data without an error, if damage is accepted."""
    if notes.truncated == "refuse":
        return contextlib.nullcontext()
    return _setting(ImageFile, "LOAD_TRUNCATED_IMAGES", True)


def no_pillow_limit(image: Image.Image) -> contextlib.AbstractContextManager[None]:
    """Lift Pillow's process-wide pixel limit for an image that our own limit allows."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or image.width * image.height <= limit:
        return contextlib.nullcontext()
    return _setting(Image, "MAX_IMAGE_PIXELS", None)
