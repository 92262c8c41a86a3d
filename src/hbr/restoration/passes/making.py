"""What a model makes of a photo, or of a part of one, and how that is told.

Shapes: H W the result, in pixels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from hbr.image import Photo
from hbr.models.protocol import (
    IN_TORCH,
    ArrayModel,
    Backend,
    Capabilities,
    Conditions,
    Model,
    PreviewStep,
    Sampling,
)
from hbr.restoration.passes.inference import TiledRun, TileProgress
from hbr.restoration.pixels.gate import Judgement
from hbr.restoration.settings import (
    PeopleProvenance,
    Provenance,
    RestoreSettings,
)
from hbr.version import __version__, installed_version

if TYPE_CHECKING:
    import torch

    from hbr.restoration.passes.structure import Structure
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


class LoadedModel(Protocol):
    """What restores the pixels of a photo, or of a part of one: `hbr.Restorer`."""

    model: Model | ArrayModel
    name: str
    sha256: str | None
    fidelity: float | None
    decoder: FoundFile | None
    dtype: str
    rewrites: tuple[str, ...]
    backend: Backend
    fallback: str | None

    @property
    def capabilities(self) -> Capabilities:
        """Those of the model."""

    @property
    def device(self) -> torch.device | str:
        """Where the model runs."""

    def conditions(self, settings: RestoreSettings) -> Conditions:
        """What guides the model besides the photo."""

    def make(
        self,
        given: Photo,
        settings: RestoreSettings,
        progress: TileProgress | None = None,
        preview: PreviewStep | None = None,
    ) -> Made:
        """Restore the pixels of a photo, without looking for people."""

    def sibling(self, *, model: str | None = None, fidelity: float | None = None) -> LoadedModel:
        """Another model, or this one at another fidelity, on the same device."""


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
    color = restorer.capabilities.color if settings.color == "auto" else settings.color
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
        "color": color,
        "color_map": dataclasses.asdict(settings.color_map) if settings.color_map else None,
        "grain": settings.grain,
        "seed": settings.seed,
        "prompt": settings.prompt,
        "people": people,
        "faces": None,
        "structure": structure.sources if structure else None,
        "sampling": dataclasses.asdict(settings.sampling or Sampling()) if structure else None,
    }
