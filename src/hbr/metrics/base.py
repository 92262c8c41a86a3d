"""Metrics: a row of the table, the interface, and the classes that call an implementation.

Importing it loads no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from hbr.config import check
from hbr.devices import exact_inference
from hbr.errors import ExitCode, HbrError

if TYPE_CHECKING:
    from torch import Tensor


Better = Literal["higher", "lower"]
"""Which way a metric is better."""


class MetricError(HbrError, ValueError):
    """A metric that is unknown, cannot be loaded, or cannot be computed on these images."""

    exit_code = ExitCode.WEIGHTS
    http_status = 503


@dataclass(frozen=True)
class MetricInfo:
    """One row of the table.

    Attributes:
        id: what `--metrics` takes.
        name: its heading in a table of results.
        version: changes whenever its values change.
        better: whether higher or lower is better.
        kind: what it is computed on. A `person` metric also takes the people in the images, and a
            `distribution` metric gives one number per folder.
        colour: the colour space that it is computed in.
        source: the paper.
        implementation: whose code computes it: hbr, torchmetrics, pyiqa, torch-fidelity.
        licence: of that code and of its weights.
        crop: pixels cut from each side before it is computed.
        min_size: the shortest side that it can be computed on, in pixels, after the crop.
        weights: names in the catalogue of `hbr.weights` that it needs.
        extra: the optional dependency that it needs.
        needs: what a `person` metric reads of the people: masks, keypoints, restored keypoints.
        function: `module:name` of a plain function (image, reference) → [b], of a `person` metric
            as `hbr.metrics.person.PersonMeasure`; or
        factory: `module:name` of what makes the metric: (info, device, weights) → Metric.
    """

    id: str
    name: str
    version: str
    better: Better
    kind: Literal["full-reference", "no-reference", "distribution", "person"]
    colour: str
    source: str
    implementation: str = "hbr"
    licence: str = "Apache-2.0"
    crop: int = 0
    min_size: int = 1
    weights: tuple[str, ...] = ()
    extra: str | None = None
    needs: tuple[str, ...] = ()
    function: str | None = None
    factory: str | None = None

    def __post_init__(self) -> None:
        one = (self.function is None) != (self.factory is None)
        check(one, f"{self.id}.function", self.function, "set, or factory instead, not both")

    @property
    def heading(self) -> str:
        """The name with everything its values depend on: version, colour space, crop."""
        crop = f"crop {self.crop}" if self.crop else "no crop"
        return f"{self.name} ({self.implementation} {self.version}, {self.colour}, {crop})"

    @property
    def arrow(self) -> str:
        """↑ where higher is better, else ↓."""
        return "↑" if self.better == "higher" else "↓"

    @property
    def needs_reference(self) -> bool:
        """Whether it compares each image with a reference."""
        return self.kind in ("full-reference", "person")


class Metric(Protocol):
    """What `load_metric` gives for pictures one by one.

    `metric(image, reference)` takes RGB [b, 3, h, w] in [0, 1], on any device, and gives one
    float64 for each, [b]; metrics without a reference ignore it. `person` metrics also take
    `people=`, and some `restored_people=`: see `hbr.metrics.person`. `MetricError`s say what does
    not fit. Distribution metrics have another interface: see `hbr.metrics.frechet`.
    """

    info: MetricInfo

    def __call__(self, image: Tensor, reference: Tensor | None = None) -> Tensor:
        """One value per image."""


class FunctionMetric:
    """A plain function as a `Metric`: checks its input, crops it, then calls the function."""

    def __init__(self, info: MetricInfo, function: Callable[..., Any]) -> None:
        self.info = info
        self.function = function

    def __call__(self, image: Tensor, reference: Tensor | None = None) -> Tensor:
        """One float64 for each picture; see `Metric`."""
        check_images(self.info, image, reference)
        pictures = (image, reference) if self.info.needs_reference else (image,)
        given = [t for t in pictures if t is not None]
        if crop := self.info.crop:
            given = [t[..., crop:-crop, crop:-crop] for t in given]
        return cast("Tensor", self.function(*given).double())


class NetworkMetric:
    """A network as a `Metric`: checks its input, then calls it without gradient."""

    def __init__(self, info: MetricInfo, network: Callable[..., Any], device: str) -> None:
        self.info = info
        self.device = device
        self.network = cast(Any, network).to(device) if hasattr(network, "to") else network

    def __call__(self, image: Tensor, reference: Tensor | None = None) -> Tensor:
        """One float64 for each picture, on the CPU; see `Metric`."""
        import torch

        check_images(self.info, image, reference)
        given = (image, reference) if self.info.needs_reference else (image,)
        with exact_inference():
            values = self.network(
                *(t.to(self.device, torch.float32) for t in given if t is not None)
            )
        return cast("Tensor", values.double().cpu())


def check_images(info: MetricInfo, image: Tensor, reference: Tensor | None) -> None:
    """Raise `MetricError` unless `info` can be computed on these pictures.

    Expects [b, 3, h, w], a reference of the same shape where one is needed, and at least
    `min_size` pixels on each side.
    """
    shape = tuple(image.shape)
    if len(shape) != 4 or shape[1] != 3:
        raise MetricError(f"{info.id} takes RGB pictures [b, 3, h, w]; got {list(shape)}")
    if min(shape[2:]) < info.min_size + 2 * info.crop:
        raise MetricError(
            f"{info.id} needs {info.min_size + 2 * info.crop} pixels on each side; "
            f"got {shape[3]}x{shape[2]}"
        )
    if not info.needs_reference:
        return
    if reference is None:
        raise MetricError(f"{info.id} compares with a reference, and none was given")
    if tuple(reference.shape) != shape:
        raise MetricError(
            f"{info.id} compares pictures of one size; got {shape[3]}x{shape[2]} and "
            f"{reference.shape[-1]}x{reference.shape[-2]}"
        )
