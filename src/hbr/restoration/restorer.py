"""`Restorer`: a model, and everything between a photo and its restored self.

Shapes: b tiles, h w the photo before and H W after, t_h t_w a tile, all in pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from hbr.config import ConfigError
from hbr.devices import (
    choose_batch,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    keep_freed_memory,
    reproducible,
    torch_dtype,
)
from hbr.errors import OutOfMemoryError
from hbr.image import Photo
from hbr.image.pixels import to_8_bits
from hbr.models.protocol import (
    IN_TORCH,
    ArrayModel,
    Backend,
    Conditions,
    Model,
    PreviewStep,
    PromptedModel,
    Sampling,
    SamplingModel,
)
from hbr.people.captions import ordered
from hbr.restoration.passes import inference
from hbr.restoration.passes.making import Made, provenance_of
from hbr.restoration.passes.tiling import plan_tiles
from hbr.restoration.pixels.color import fix_color
from hbr.restoration.pixels.gate import judge
from hbr.restoration.pixels.grain import grained
from hbr.restoration.pixels.inputs import (
    PhotoLike,
    as_photo,
    reduction_of,
    resized_pixels,
    resized_to,
    seen_pixels,
)
from hbr.restoration.result import Restored
from hbr.restoration.settings import RestoreSettings, TileChoice

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hbr.restoration.passes.structure import Structure, StructureFinder
    from hbr.restoration.people.locating import PeopleLocator
    from hbr.weights import FoundFile


class Restorer:
    """Restores photos of any size with one model.

    A photo larger than the model's native size is restored in overlapping tiles. The image
    embedding (prompt) that guides the model comes from each tile, as in training, so a tile of
    plain background does not know that there is a person beside it.
    """

    def __init__(
        self,
        model: Model | ArrayModel,
        *,
        name: str = "custom",
        sha256: str | None = None,
        fidelity: float | None = None,
        decoder: FoundFile | None = None,
        rewrites: tuple[str, ...] = (),
    ) -> None:
        """Wrap a loaded model, on the device and in the precision that it has.

        Args:
            model: a network or a backend; a `torch.nn.Module` is put into eval mode.
            name, sha256, fidelity, decoder, rewrites: of it, for the provenance; see `Provenance`.
        """
        self.model: Model | ArrayModel = model.eval() if hasattr(model, "eval") else model
        self.capabilities = model.capabilities
        self.name = name
        self.sha256 = sha256
        self.fidelity = fidelity
        self.decoder = decoder
        self.rewrites = rewrites
        self.device = model.device
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.backend: Backend = getattr(model, "backend", "eager")
        self.fallback: str | None = None
        self._again: Callable[..., Restorer] | None = None
        self._siblings: dict[tuple[str | None, float | None], Restorer] = {}

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
            dtype: "auto" (bfloat16 if hardware and model support it, else float32), or a name.
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

    @classmethod
    def from_file(
        cls,
        model: FoundFile,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        fidelity: float | None = None,
        backend: Backend = "eager",
        decoder: FoundFile | None = None,
    ) -> Restorer:
        """Load a model file whose SHA-256 is known; otherwise as `from_pretrained`."""
        known = partial(cls, name=model.name, sha256=model.sha256, decoder=decoder)
        if backend not in IN_TORCH:
            from hbr.models.graph_files import load_graph

            graph, used = load_graph(model, device, dtype, fidelity, decoder, backend)
            restorer = known(graph, fidelity=used, rewrites=graph.rewrites)
        else:
            from hbr.models.inference.compiled import compile_model
            from hbr.models.loading import open_model

            place, opened = choose_device(device), open_model(model.path, decoder)
            if place.type == "cpu":
                keep_freed_memory()
            precision = torch_dtype(choose_dtype(dtype, place, opened.capabilities.dtypes))
            loaded, rewrites = opened.rewrite(opened.load(place, precision, fidelity))
            loaded = compile_model(loaded) if backend == "compiled" else loaded
            used = opened.fidelity if fidelity is None else fidelity
            restorer = known(loaded, fidelity=used, rewrites=rewrites)
        restorer._again = partial(
            cls.from_file, model, device, dtype, backend=backend, decoder=decoder
        )
        return restorer

    def __call__(
        self,
        photo: PhotoLike,
        settings: RestoreSettings | None = None,
        *,
        progress: inference.TileProgress | None = None,
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

            return guarded(self, given, settings, progress, preview)
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
            settings=inference.decided(settings, made.run, self.capabilities),
        )

    def make(
        self,
        given: Photo,
        settings: RestoreSettings,
        progress: inference.TileProgress | None = None,
        preview: PreviewStep | None = None,
    ) -> Made:
        """Restore the pixels of a photo, all at once: no gate, and nobody is looked for."""
        began = time.perf_counter()
        color = self.capabilities.color if settings.color == "auto" else settings.color
        conditions = self.conditions(settings)
        structure: Structure | None = None
        pixels = resized_pixels(given, settings)
        reduce = reduction_of(given, pixels, settings, self.capabilities.upscale)
        reduced = replace(settings, reduce=reduce)
        seen = seen_pixels(given, pixels, reduced, self.capabilities.upscale)
        read = time.perf_counter()
        with reproducible(settings.seed, self.device):
            if self.capabilities.samples:
                first = cast(SamplingModel, self.model).first
                pixels = self._run(first, seen, "auto", Conditions(), settings, progress).pixels
                run, structure = self._sample(pixels, settings, conditions, progress, preview)
            else:
                run = self._run(self.model, seen, settings.tile, conditions, settings, progress)
        restored = time.perf_counter()
        h, w = pixels.shape[:2]
        made = run.pixels[:h, :w] if reduce is None else resized_to(run.pixels, h, w)
        planes = fix_color(made, pixels, color, settings.color_map)
        done = time.perf_counter()
        timings = {"read": read - began, "model": restored - read, "color": done - restored}
        return Made(planes=planes, run=run, structure=structure, reduce=reduce, timings=timings)

    def sibling(self, *, model: str | None = None, fidelity: float | None = None) -> Restorer:
        """Another model, or this one at another fidelity, on this device; the last few are kept.

        Raises:
            ConfigError: the model has no fidelity, or it was not loaded from a file.
            hbr.models.WeightsError: the weights of the other model are missing or damaged.
        """
        key, known = (model, fidelity), self._siblings
        if key not in known:
            if len(known) >= 8:  # many people may ask for as many fidelities
                known.pop(next(iter(known)))
            known[key] = self._load_sibling(model, fidelity)
        return known[key]

    def _load_sibling(self, model: str | None, fidelity: float | None) -> Restorer:
        if model is not None:
            return Restorer.from_pretrained(model, device=self.device, fidelity=fidelity)
        if fidelity == self.fidelity:
            return self
        if self._again is None or self.fidelity is None:
            raise ConfigError(f"{self.name} has no fidelity to choose; leave it out")
        return self._again(fidelity=fidelity)

    @cached_property
    def locator(self) -> PeopleLocator:
        """What finds people. `PeopleLocator(detector)` in its place takes another detector."""
        from hbr.restoration.people.locating import PeopleLocator

        return PeopleLocator(device=str(self.device))

    @cached_property
    def _structure(self) -> StructureFinder:
        from hbr.restoration.passes.structure import StructureFinder

        model = cast(SamplingModel, self.model)
        return StructureFinder(lambda image: model.attention(image.to(self.device)), self.device)

    def conditions(self, settings: RestoreSettings) -> Conditions:
        """What guides the model besides the photo, so far as the photo does not decide it.

        Raises:
            ValueError: there is a prompt, a map or a way of sampling, and the model takes none; or
                the file of a map is missing.
        """
        samples, maps = self.capabilities.samples, self.capabilities.maps
        if settings.sampling is not None and not samples:
            raise ValueError(f"{self.name} restores in one step: there is nothing to sample")
        for name, given in (("pose", settings.pose), ("attention", settings.attention)):
            if given in ("auto", "none"):
                continue
            if name not in maps:
                raise ValueError(f"{self.name} is not guided by {name}: leave it out")
            if not Path(given).is_file():
                raise ValueError(f"{given} is no file; it must be auto, none or a file")
            if settings.people != "off":
                raise ValueError(f"{given} belongs to the whole photo; leave --people out")
        if settings.prompt is None:
            return Conditions()
        if not self.capabilities.takes_prompt:
            raise ValueError(f"{self.name} takes no prompt: it has no text encoder")
        text = ordered(settings.prompt) if samples else settings.prompt
        return Conditions(tokens={"prompt": cast(PromptedModel, self.model).embed(text)})

    def _run(
        self,
        model: Model | ArrayModel,
        pixels: NDArray[np.uint8] | NDArray[np.uint16],
        tile: TileChoice,
        conditions: Conditions,
        settings: RestoreSettings,
        progress: inference.TileProgress | None,
    ) -> inference.TiledRun:
        """Run a model, or the first stage of one, over tiles."""
        tile = 0 if tile == "auto" and model.capabilities.whole else tile
        return inference.run_within_memory(
            model,
            pixels,
            plan_tiles(pixels.shape[0], pixels.shape[1], model.capabilities, tile),
            conditions=conditions,
            batch=choose_batch(self.device) if settings.batch == "auto" else settings.batch,
            progress=progress,
        )

    def _sample(
        self,
        pixels: NDArray[np.uint16],
        settings: RestoreSettings,
        conditions: Conditions,
        progress: inference.TileProgress | None,
        preview: PreviewStep | None,
    ) -> tuple[inference.TiledRun, Structure]:
        """Run the second stage of a model over the whole result of the first."""
        maps = self.capabilities.maps
        structure = self._structure(to_8_bits(pixels), maps, settings.pose, settings.attention)

        def watch(done: int, total: int, image: Callable[[], Tensor]) -> None:
            if progress:
                progress(done, total)
            if preview:  # without what was added at the edges
                preview(done, total, lambda: image()[..., : pixels.shape[0], : pixels.shape[1]])

        sampling = settings.sampling or Sampling()
        if settings.tile != "auto":
            sampling = replace(sampling, tile=settings.tile or max(pixels.shape))
        conditions = replace(conditions, maps=structure.maps, people=structure.people)
        conditions = replace(conditions, sampling=sampling, seed=settings.seed, watch=watch)
        plan = plan_tiles(pixels.shape[0], pixels.shape[1], self.capabilities, 0)
        try:
            made = inference.run_tiles(self.model, pixels, plan, conditions=conditions)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"out of memory on {self.device} with windows of "
                f"{sampling.tile or self.capabilities.native_size} pixels; use a smaller --tile, a "
                "smaller --scale, --guidance 0, or --device cpu"
            ) from error
        return inference.TiledRun(made, plan, 1), structure

    def check_reduction(self, settings: RestoreSettings) -> None:
        """Raise `ValueError` if the photo is to be reduced, and the network does not enlarge."""
        if settings.reduce is not None and self.capabilities.upscale == 1:
            raise ValueError(f"{self.name} does not enlarge, so the photo is not reduced before it")
