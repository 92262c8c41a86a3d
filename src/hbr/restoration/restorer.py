"""`Restorer`: a model, and everything between a photo and its restored self."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbr.devices import choose_device
from hbr.models.protocol import IN_TORCH, Backend, PreviewStep
from hbr.restoration.passes.inference import TileProgress, decided
from hbr.restoration.passes.making import LoadedModel, provenance_of
from hbr.restoration.pixels.gate import judge
from hbr.restoration.pixels.grain import grained
from hbr.restoration.pixels.inputs import PhotoLike, as_photo
from hbr.restoration.result import Restored
from hbr.restoration.settings import RestoreSettings

if TYPE_CHECKING:
    import torch

    from hbr.restoration.people.locating import PeopleLocator


class Restorer(LoadedModel):
    """Restores photos of any size with one model.

    A photo larger than the model's native size is restored in overlapping tiles. The image
    embedding (prompt) that guides the model comes from each tile, as in training, so a tile of
    plain background does not know that there is a person beside it.
    """

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path = "nano",
        device: str | torch.device = "auto",
        dtype: str = "auto",
        fidelity: float | None = None,
        backend: Backend = "eager",
        decoder: str | Path | None = None,
    ) -> Restorer:
        """Load a model.

        Args:
            name_or_path: a known name (`hbr.models.available()`), a safetensors file of hbr, or
                with the extra `spandrel` a `.pth` or `.safetensors` file of another project.
            device: "cpu", "cuda", "cuda:N", "mps", or "auto", the first available of CUDA, MPS
                and CPU.
            dtype: "auto" (bfloat16 if the model has it and the hardware is faster in it, else
                float32), or a name.
            fidelity: of a model with two ends, as nano: 1 is faithful to the photo, 0 sharp, with
                texture that may be invented; None is its default.
            backend: what runs the model, see `hbr.models.protocol.Backend`.
            decoder: in place of the model's own; a known name (`hbr.weights.find_decoder`) or file.

        Raises:
            hbr.config.ConfigError: the fidelity or the decoder does not suit the model.
            hbr.models.WeightsError: the weights are unknown, missing or damaged.
            hbr.models.graphs.BackendError: the backend is not installed, or cannot run the model.
            ValueError: the device or precision is not available.
        """
        from hbr.weights import find_and_hash_model, find_decoder

        if backend in IN_TORCH:  # a wrong device shows before the file is read
            choose_device(device)
        model = find_and_hash_model(name_or_path)
        other = None if decoder is None else find_decoder(decoder)
        return cls.from_file(model, device, dtype, fidelity, backend, other)

    def __call__(
        self,
        photo: PhotoLike,
        settings: RestoreSettings | None = None,
        *,
        progress: TileProgress | None = None,
        preview: PreviewStep | None = None,
        **changes: Any,
    ) -> Restored:
        """Restore a photo. The same photo, seed and settings give the same bytes on one machine.

        Args:
            photo: a path; a binary file, as `io.BytesIO`; a PIL image; an array [h, w] or
                [h, w, 1 to 4] of uint8, uint16 or floats in [0, 1]; a tensor [3, h, w] or
                [1, 3, h, w] of floats in [0, 1]; or a `Photo`. Any size from 1×1. Floats give a
                result of 16 bits.
            settings: how; the defaults if None.
            progress: called as `progress(done, total)`, counting tiles, then steps of a sampling.
            preview: called as `preview(done, total, image)` after each step of a sampling;
                `image()` is what it would be now, [1, 3, H, W] in [0, 1].
            **changes: replace fields of `settings`, as in `scale=2`.

        Raises:
            ValueError: a photo or setting that is not as described; among them
                `hbr.image.PhotoError`, a file that cannot be read.
            OutOfMemoryError: not even small tiles, one at a time, fit into memory.
            FloatingPointError: the model gave values that are not finite.
        """
        began = time.perf_counter()
        settings = replace(settings or RestoreSettings(), **changes)
        self.conditions(settings)
        self.check_reduction(settings)
        given = as_photo(photo, max_pixels=settings.max_pixels)
        if settings.identity != "off":
            from hbr.restoration.people.guarding import guarded

            again = partial(self, progress=progress, preview=preview)
            return guarded(self, given, settings, again)
        if settings.people != "off":
            from hbr.restoration.people.restoring import restore_people

            if self.locator.is_ready(settings):
                return restore_people(self, self.locator, given, settings, progress, preview)
            settings = replace(settings, people="off")
        judged = None
        if settings.gate == "auto" and settings.result_size(given.size) == given.size:
            judged = judge(given.pixels)
            if judged.verdict == "nothing to restore":
                seconds = time.perf_counter() - began
                timings = {"read": seconds, "model": 0.0, "color": 0.0, "total": seconds}
                left = provenance_of(self, settings, None, judged)
                return Restored(photo=given, timings=timings, provenance=left, settings=settings)
        made = self.make(given, settings, progress, preview)
        restored = time.perf_counter()
        result = given.with_pixels(grained(made.planes, given, settings))
        done = time.perf_counter()
        model, color = made.timings["model"], made.timings["color"] + done - restored
        total = done - began
        timings = {"read": total - model - color, "model": model, "color": color, "total": total}
        provenance = provenance_of(self, settings, made, judged)
        settings = replace(settings, color=provenance["color"], reduce=made.reduce)
        return Restored(
            photo=result,
            timings=timings,
            provenance=provenance,
            settings=decided(settings, made.run, self.capabilities),
        )

    @cached_property
    def locator(self) -> PeopleLocator:
        """What finds people. `PeopleLocator(detector)` in its place takes another detector."""
        from hbr.restoration.people.locating import PeopleLocator

        return PeopleLocator(device=str(self.device))
