"""A loaded model: what it makes of a photo, or of a part of one, and how that is told.

Shapes: H W the result, in pixels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

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
    ColorFix,
    Conditions,
    Model,
    PreviewStep,
    PromptedModel,
    Sampling,
    SamplingModel,
)
from hbr.people.captions import ordered
from hbr.restoration.passes.inference import TiledRun, TileProgress, run_tiles, run_within_memory
from hbr.restoration.passes.tiling import plan_tiles
from hbr.restoration.pixels.color import fix_color
from hbr.restoration.pixels.gate import Judgement
from hbr.restoration.pixels.inputs import resized_pixels, resized_to, seen_pixels
from hbr.restoration.settings import PeopleProvenance, Provenance, RestoreSettings, TileChoice
from hbr.version import __version__, installed_version

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hbr.restoration.passes.structure import Structure, StructureFinder
    from hbr.weights import FoundFile


@dataclass(frozen=True, eq=False, kw_only=True)
class Made:
    """The pixels that a model made of a photo, or of a part of one.

    Attributes:
        planes: [3, H, W] float32 in [0, 1], RGB in sRGB.
        run: its tiles.
        structure: the maps that guided the model, if any did.
        reduce: by how much the photo was made smaller for a network that enlarges.
        timings: seconds for "read" (resizing), "model" and "color".
    """

    planes: NDArray[np.float32]
    run: TiledRun
    structure: Structure | None
    reduce: float | None
    timings: Mapping[str, float]


class LoadedModel:
    """A loaded model, which restores the pixels of a photo, or of a part of one."""

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
        self._again: Callable[..., Self] | None = None
        self._siblings: dict[tuple[str | None, float | None], Self] = {}

    @classmethod
    def from_file(
        cls,
        model: FoundFile,
        device: str | torch.device = "auto",
        dtype: str = "auto",
        fidelity: float | None = None,
        backend: Backend = "eager",
        decoder: FoundFile | None = None,
    ) -> Self:
        """Load a model file whose SHA-256 is known; otherwise as `hbr.Restorer.from_pretrained`."""
        known = partial(cls, name=model.name, sha256=model.sha256, decoder=decoder)
        if backend not in IN_TORCH:
            from hbr.models.graph_files import load_graph

            graph, used = load_graph(model, device, dtype, fidelity, decoder, backend)
            made = known(graph, fidelity=used, rewrites=graph.rewrites)
        else:
            from hbr.models.loading import open_model

            place, opened = choose_device(device), open_model(model.path, decoder)
            if place.type == "cpu":
                keep_freed_memory()
            precision = torch_dtype(choose_dtype(dtype, place, opened.capabilities.dtypes))
            loaded, rewrites = opened.rewrite(opened.load(place, precision, fidelity))
            if backend == "compiled":
                from hbr.models.inference.compiled import compile_model

                loaded = compile_model(loaded)
            used = opened.fidelity if fidelity is None else fidelity
            made = known(loaded, fidelity=used, rewrites=rewrites)
        made._again = partial(cls.from_file, model, device, dtype, backend=backend, decoder=decoder)
        return made

    def make(
        self,
        given: Photo,
        settings: RestoreSettings,
        progress: TileProgress | None = None,
        preview: PreviewStep | None = None,
    ) -> Made:
        """Restore the pixels of a photo, all at once: no gate, and nobody is looked for."""
        began = time.perf_counter()
        color = self.color_fix(settings)
        conditions = self.conditions(settings)
        structure: Structure | None = None
        pixels = resized_pixels(given, settings)
        seen, reduce = seen_pixels(given, pixels, settings, self.capabilities.upscale)
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

    def color_fix(self, settings: RestoreSettings) -> ColorFix:
        """The colour fix of these settings, or where they leave it open, what suits the model."""
        return self.capabilities.color if settings.color == "auto" else settings.color

    def sibling(self, *, model: str | None = None, fidelity: float | None = None) -> Self:
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

    def _load_sibling(self, model: str | None, fidelity: float | None) -> Self:
        if model is not None:
            from hbr.weights import find_and_hash_model

            return self.from_file(find_and_hash_model(model), self.device, fidelity=fidelity)
        if fidelity == self.fidelity:
            return self
        if self._again is None or self.fidelity is None:
            raise ConfigError(f"{self.name} has no fidelity to choose; leave it out")
        return self._again(fidelity=fidelity)

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
        progress: TileProgress | None,
    ) -> TiledRun:
        """Run a model, or the first stage of one, over tiles."""
        return run_within_memory(
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
        progress: TileProgress | None,
        preview: PreviewStep | None,
    ) -> tuple[TiledRun, Structure]:
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
            made = run_tiles(self.model, pixels, plan, conditions=conditions)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"out of memory on {self.device} with windows of "
                f"{sampling.tile or self.capabilities.native_size} pixels; use a smaller --tile, a "
                "smaller --scale, --guidance 0, or --device cpu"
            ) from error
        return TiledRun(made, plan, 1), structure

    def check_reduction(self, settings: RestoreSettings) -> None:
        """Raise `ValueError` if the photo is to be reduced, and the network does not enlarge."""
        if settings.reduce is not None and self.capabilities.upscale == 1:
            raise ValueError(f"{self.name} does not enlarge, so the photo is not reduced before it")


def provenance_of(
    restorer: LoadedModel,
    settings: RestoreSettings,
    made: Made | None,
    judged: Judgement | None,
    people: PeopleProvenance | None = None,
) -> Provenance:
    """How a photo was restored; where nothing was made, how it was left as it is."""
    run = made.run if made else None
    structure = made.structure if made else None
    tile = overlap = (0, 0)
    if run is not None:
        rows, columns = run.plan.rows, run.plan.columns
        tile, overlap = (rows.tile, columns.tile), (rows.overlap, columns.overlap)
    decoder = restorer.decoder
    return {
        "hbr": __version__,
        "torch": installed_version("torch") if restorer.backend in IN_TORCH else None,
        "model": restorer.name,
        "sha256": restorer.sha256,
        "fidelity": restorer.fidelity,
        "decoder": {"name": decoder.name, "sha256": decoder.sha256} if decoder else None,
        "device": str(restorer.device),
        "dtype": restorer.dtype,
        "backend": restorer.backend,
        "fallback": restorer.fallback or getattr(restorer.model, "fallback", None),
        "rewrites": restorer.rewrites,
        "tile": tile,
        "overlap": overlap,
        "tiles": len(run.plan) if run else 0,
        "batch": run.batch if run else 0,
        "gate": judged.verdict if judged else None,
        "gate_score": judged.score if judged else None,
        "gate_reasons": judged.reasons if judged else (),
        "scale": settings.scale,
        "size": settings.size,
        "reduce": made.reduce if made else None,
        "color": restorer.color_fix(settings),
        "color_map": asdict(settings.color_map) if settings.color_map else None,
        "grain": settings.grain,
        "seed": settings.seed,
        "prompt": settings.prompt,
        "people": people,
        "faces": None,
        "structure": structure.sources if structure else None,
        "sampling": asdict(settings.sampling or Sampling()) if structure else None,
    }
