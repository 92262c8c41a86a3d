"""`Restorer`: a model, and everything between a photo and its restored self.

Shapes: b tiles, h w the photo before and H W after, t_h t_w a tile, all in pixels.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hbr.devices import choose_batch, choose_device, choose_dtype, reproducible, torch_dtype
from hbr.image import DEFAULT_MAX_PIXELS, Photo, write_photo
from hbr.models.protocol import Conditions, Model, PromptedModel
from hbr.restoration.color import COLOR_FIXES, ColorFix, fix_color
from hbr.restoration.inference import TiledRun, TileProgress, run_within_memory
from hbr.restoration.inputs import PhotoLike, as_photo, resized_pixels
from hbr.restoration.tiling import TileChoice, plan_tiles
from hbr.version import __version__


@dataclass(frozen=True, eq=False)
class Restored:
    """A restored photo and how it came about.

    Attributes:
        photo: pixels at the depth of the input, with its alpha, profile and metadata.
        timings: seconds for "read" (with resizing), "model" (tiles and blending), "color" (with
            putting the pixels back into the photo) and "total".
        provenance: what it takes to make the same bytes again: versions, model and its SHA-256,
            seed, and the settings as they were in the end, after any retreat for want of memory.
        people: the people that were found; none are looked for yet.
    """

    photo: Photo
    timings: Mapping[str, float]
    provenance: Mapping[str, Any]
    people: tuple[Any, ...] = ()

    @property
    def image(self) -> PIL.Image.Image:
        """An 8-bit PIL image in sRGB, `RGB`, or `RGBA` if there is alpha."""
        return self.photo.pil()

    @property
    def pixels(self) -> NDArray[np.uint8] | NDArray[np.uint16]:
        """[H, W, 3] RGB in sRGB, uint8, or uint16 if the input had more than 8 bits."""
        return self.photo.pixels

    @property
    def tensor(self) -> Tensor:
        """[1, 3, H, W] float32 in [0, 1]."""
        return self.photo.tensor()

    def save(self, path: str | Path, **flags: Any) -> Path:
        """Write the photo, atomically; `flags` are those of `hbr.image.write_photo`.

        Raises:
            hbr.image.PhotoError: it cannot be written.
        """
        return write_photo(self.photo, path, **flags)


class Restorer:
    """Restores photos of any size with one model.

    A photo that is larger than the model's own size goes through it in overlapping tiles. Each tile
    is restored by itself: the image embedding (prompt) that guides the model comes from the tile
    and not from the whole photo. That is how such models are trained, it keeps a tile's result
    independent of what lies far away, and it needs no second look at the photo; the price is that a
    tile of plain background does not know that there is a person beside it.
    """

    def __init__(self, model: Model, *, name: str = "custom", sha256: str | None = None) -> None:
        """Wrap a loaded model, on the device and in the precision that it has.

        Args:
            model: a network or a backend; a `torch.nn.Module` is put into eval mode.
            name: for the provenance.
            sha256: of its weights, for the provenance.
        """
        self.model = model.eval() if isinstance(model, nn.Module) else model
        self.capabilities = model.capabilities
        self.name = name
        self.sha256 = sha256
        self.device = model.device
        self.dtype = str(model.dtype).removeprefix("torch.")

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "nano",
        device: str | torch.device = "auto",
        dtype: str = "auto",
    ) -> Restorer:
        """Load a model.

        Args:
            name_or_path: a known name (`hbr.models.available()`) or a safetensors file of hbr.
            device: "cpu", "cuda", "cuda:N", "mps", or "auto", the first there is of CUDA, MPS
                and CPU.
            dtype: "auto" (bfloat16 where hardware and model have it, else float32), or a name.

        Raises:
            hbr.models.WeightsError: unknown, missing or damaged weights.
            ValueError: there is no such device or precision here.
        """
        from hbr.models import load_model
        from hbr.models import sha256 as hash_of
        from hbr.models.files import read_header
        from hbr.weights import find_model

        place = choose_device(device)
        path = find_model(name_or_path)
        supported = read_header(path).config.capabilities.dtypes
        precision = torch_dtype(choose_dtype(dtype, place, supported))
        model = load_model(path, device=place, dtype=precision)
        name = name_or_path if isinstance(name_or_path, str) else name_or_path.stem
        return cls(model, name=name, sha256=hash_of(path))

    def __call__(
        self,
        photo: PhotoLike,
        *,
        scale: float = 1.0,
        tile: TileChoice = "auto",
        color: ColorFix = "wavelet",
        batch: int | Literal["auto"] = "auto",
        seed: int = 0,
        prompt: str | None = None,
        progress: TileProgress | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Restored:
        """Restore a photo. The same photo, seed and settings give the same bytes on one machine.

        Args:
            photo: a path; a PIL image; an array [h, w] or [h, w, 1 to 4] of uint8, uint16 or
                floats in [0, 1]; a tensor [3, h, w] or [1, 3, h, w] of floats in [0, 1]; or a
                `Photo`. Any size from 1×1. Floats give a result of 16 bits.
            scale: 0.25 to 8; the photo is resized by this much before it is restored (antialiased
                bicubic), and the result has that size.
            tile: edge of the tiles in pixels, 0 for the whole photo at once, or "auto", near the
                size that the model was trained on (`hbr.restoration.tiling.plan_tiles`).
            color: where the colours come from: "wavelet" takes the low frequencies of the input,
                "adain" its mean and deviation of each channel, "none" leaves the model's.
            batch: tiles at a time, or "auto": 1 on the CPU, more on CUDA.
            seed: for models that draw random numbers.
            prompt: a text in place of the prompt that the model makes of the image, for models
                that take one (`hbr.models.Capabilities.takes_prompt`).
            progress: called as `progress(done, total)`, counting tiles.
            max_pixels: larger files, and larger results of enlarging, are refused.

        Raises:
            ValueError: a photo or setting that is not as above; among them
                `hbr.image.PhotoError`, a file that cannot be read.
            OutOfMemoryError: not even small tiles, one at a time, fit into memory.
            FloatingPointError: the model gave values that are not finite.
        """
        began = time.perf_counter()
        if color not in COLOR_FIXES:
            raise ValueError(f"color is {color!r}; it must be one of {', '.join(COLOR_FIXES)}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed is {seed!r}; it must be a whole number")
        size = self._batch(batch)
        conditions = self.conditions(prompt)
        given = as_photo(photo, max_pixels=max_pixels)
        pixels = resized_pixels(given, scale, max_pixels=max_pixels)
        plan = plan_tiles(pixels.shape[0], pixels.shape[1], self.capabilities, tile)
        read = time.perf_counter()
        with reproducible(seed, self.device):
            run = run_within_memory(
                self.model,
                pixels,
                plan,
                conditions=conditions,
                batch=size,
                progress=progress,
            )
        restored = time.perf_counter()
        result = given.with_pixels(fix_color(run.pixels, pixels, color))
        done = time.perf_counter()
        return Restored(
            result,
            {
                "read": read - began,
                "model": restored - read,
                "color": done - restored,
                "total": done - began,
            },
            self._provenance(run, scale=scale, color=color, seed=seed, prompt=prompt),
        )

    def conditions(self, prompt: str | None) -> Conditions:
        """What guides the model besides the photo.

        Raises:
            ValueError: there is a prompt, and the model takes none.
        """
        if prompt is None:
            return Conditions()
        if not self.capabilities.takes_prompt:
            raise ValueError(f"{self.name} takes no prompt: it has no text encoder")
        return Conditions(tokens={"prompt": cast(PromptedModel, self.model).embed(prompt)})

    def _batch(self, batch: int | Literal["auto"]) -> int:
        if batch == "auto":
            return choose_batch(self.device)
        if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
            raise ValueError(f"batch is {batch!r}; it must be auto or 1 or more")
        return batch

    def _provenance(self, run: TiledRun, **settings: Any) -> dict[str, Any]:
        rows, columns = run.plan.rows, run.plan.columns
        return {
            "hbr": __version__,
            "torch": torch.__version__,
            "model": self.name,
            "sha256": self.sha256,
            "device": str(self.device),
            "dtype": self.dtype,
            "tile": (rows.tile, columns.tile),
            "overlap": (rows.overlap, columns.overlap),
            "tiles": len(run.plan),
            "batch": run.batch,
            **settings,
        }
