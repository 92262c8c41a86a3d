"""Which backend runs a model: torch, or a graph in ONNX Runtime or OpenVINO.

A process that runs a graph starts seconds earlier, because it imports no torch; for many photos the
faster backend is the better one. `warm_up` takes the time of those that are installed, once for
each model and machine, and `choose` decides by it and by the size of a job, so that the same job is
done in the same way every time. Nothing is measured while photos are restored: it takes longer than
a small job, and it would change by which backend the next job is done.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hbr.config import from_dict, to_dict
from hbr.devices import choose_device
from hbr.errors import one_line, reason
from hbr.files import write_text
from hbr.models.files import is_of_hbr
from hbr.models.graph_files import (
    check_circumstances,
    circumstances,
    file_fidelity,
    graph_folder,
    load_graph,
    read_card,
)
from hbr.models.graphs import BackendError, check_installed
from hbr.models.protocol import BACKENDS, IN_TORCH, Backend, Capabilities
from hbr.processes import threads
from hbr.restoration.batch.estimate import planned_tiles, tile_pixels
from hbr.restoration.batch.jobs import BatchPlan
from hbr.restoration.restorer import Restorer
from hbr.restoration.settings import RestoreSettings
from hbr.version import installed_version
from hbr.weights import FoundFile, find_and_hash_model, find_decoder

log = logging.getLogger(__name__)

MEASURED = "measured.json"
# Headers of more photos are not read: how long a process takes to start then hardly matters.
_PHOTOS, _MANY = 64, 1e6
# The backends that every measurement has.
_ALWAYS = frozenset[Backend]({"eager", "onnx"})
_TIMES = 2
_TIMEOUT = 600.0


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """How long a backend takes.

    Attributes:
        start: seconds from the start of the process until the first tile can be restored.
        tile: seconds for a tile of the native size.
    """

    start: float
    tile: float

    def of(self, tiles: float) -> float:
        """Seconds of a process that restores so many tiles."""
        return self.start + tiles * self.tile


@dataclass(frozen=True, kw_only=True)
class MeasuredBackends:
    """Measurements of a machine.

    Attributes:
        made_with: `_circumstances`.
        device: that `auto` stood for.
        edge: of a tile in pixels.
        seconds: name of a backend → its time, in the precision that "auto" stands for.
    """

    made_with: dict[str, str]
    device: str
    edge: int
    seconds: dict[str, Seconds]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A model, and how it is to run.

    Attributes:
        model, device, dtype, fidelity: as for `Restorer.from_pretrained`.
        backend: "auto" is what was measured to take the least time (`choose`), and "eager" before
            that was done.
        decoder: as for `Restorer.from_pretrained`.
    """

    model: str
    device: str = "auto"
    dtype: str = "auto"
    fidelity: float | None = None
    backend: Backend | Literal["auto"] = "eager"
    decoder: str | None = None

    def __reduce__(self) -> tuple[Callable[[], Wanted], tuple[()]]:
        """Find the files anew in another process, which may be on another machine."""
        return partial(Wanted, **asdict(self)), ()

    @cached_property
    def files(self) -> tuple[FoundFile, FoundFile | None]:
        """The model and the decoder, if one is named; they are read for their hashes only once.

        Raises:
            WeightsError: one is unknown, missing or damaged.
        """
        decoder = None if self.decoder is None else find_decoder(self.decoder)
        return find_and_hash_model(self.model), decoder


def restorer_for(wanted: Wanted, settings: RestoreSettings, plan: BatchPlan | None) -> Restorer:
    """Load a model in the backend that is wanted, or that suits the job.

    A model that the backend cannot run, or whose graph cannot be written, runs in torch as it is,
    with a warning; so it does where the machine has no C++ compiler for "compiled".

    Without a `plan`, the backend "auto" is "eager".

    Raises:
        BackendError: ONNX Runtime or OpenVINO is wanted and missing, or eight bits are wanted and
            the model cannot be a graph.
        CalibrationError: eight bits are wanted, and there is no calibration for them.
        OSError: eight bits are wanted, and the graph cannot be written.
        Exception: as for `Restorer.from_pretrained`.
    """
    if wanted.device not in ("auto", "cpu"):
        choose_device(wanted.device)  # a wrong one shows before the file is read
    model, decoder = wanted.files
    backend, why = wanted.backend, None
    if wanted.dtype == "int8":
        if backend not in ("auto", "openvino"):
            raise ValueError("dtype is 'int8'; only the backend openvino computes in it")
        backend = "openvino"
    if backend == "auto":
        backend, why = choose(model, decoder, wanted, settings, plan)
    elif backend not in IN_TORCH:
        check_installed(backend)
    place = (model, wanted.device, wanted.dtype, wanted.fidelity)
    load = partial(Restorer.from_file, *place, decoder=decoder)
    try:
        restorer = load(backend=backend)
    except (BackendError, OSError) as error:  # an OSError of the model file comes again
        if wanted.dtype == "int8":  # which torch does not compute in
            raise
        why = one_line(error)
        if isinstance(error, OSError):
            why = f"the graph cannot be written: {reason(error)}"
        restorer = load()
    if why is not None:
        log.warning("%s; the model runs in torch", why)
    restorer.fallback = why
    return restorer


def choose(
    model: FoundFile,
    decoder: FoundFile | None,
    wanted: Wanted,
    settings: RestoreSettings,
    plan: BatchPlan | None,
) -> tuple[Backend, str | None]:
    """The backend that takes the least time for a job, by what was measured on this machine.

    Args:
        model, decoder: the files.
        wanted: the model.
        settings, plan: the job; what an earlier run of it has finished counts too, so that a
            resumed job goes on as it began.

    Returns:
        the backend, and why it is "eager" if the files of the graph cannot be used.
    """
    suits = wanted.device in ("auto", "cpu") and wanted.dtype in ("auto", "float32")
    suits = suits and not _needs_torch(settings) and is_of_hbr(model.path)
    if plan is None or not suits or not find_spec("onnxruntime"):
        return "eager", None
    # in float32 the others were not measured
    names = BACKENDS if wanted.dtype == "auto" else ("eager", "onnx")
    folder = graph_folder(model.sha256, file_fidelity(model.path, wanted.fidelity), decoder)
    try:
        card, measured = read_card(folder, model.sha256, decoder), _read_measured(folder)
    except BackendError as error:
        return "eager", one_line(error)
    if card is None or measured is None or (wanted.device == "auto" and measured.device != "cpu"):
        return "eager", None
    if measured.device != "cpu":  # torch's times are those of another device
        names = tuple(name for name in names if name not in IN_TORCH)
    tiles = _native_tiles(plan, card.capabilities, settings)
    times = {name: measured.seconds[name].of(tiles) for name in names if name in measured.seconds}
    return min(times, key=lambda name: times[name]), None


def warm_up(
    model: str, fidelity: float | None, decoder: str | None = None
) -> tuple[Path, MeasuredBackends]:
    """Make the graph of a model, and measure the backends.

    One that is not installed or fails is left out, with a warning if it fails.

    Args:
        model, fidelity, decoder: as for `Restorer.from_pretrained`.

    Returns:
        the folder of the graph, and the measurements, which lie there too.

    Raises:
        BackendError: ONNX Runtime is missing, the model cannot be a graph, or measuring it or torch
            failed.
        WeightsError: the model is missing or damaged.
        OSError: the folder cannot be written.
    """
    found, other = Wanted(model=model, decoder=decoder).files
    graph, used = load_graph(found, "auto", "auto", fidelity, other)
    folder = graph_folder(found.sha256, used, other)
    asked = {"name_or_path": model, "fidelity": fidelity, "decoder": decoder}
    edge = graph.capabilities.native_size
    seconds: dict[str, Seconds] = {}
    devices: dict[str, str] = {}
    for name in BACKENDS:
        if name == "openvino" and not find_spec("openvino"):
            continue
        try:
            seconds[name], devices[name] = _measure({**asked, "backend": name}, edge)
        except BackendError as error:
            if name in _ALWAYS:
                raise
            log.warning("%s; it is left out", one_line(error))
    measured = MeasuredBackends(
        made_with=_circumstances(), device=devices["eager"], edge=edge, seconds=seconds
    )
    write_text(folder / MEASURED, json.dumps(to_dict(measured), indent=1) + "\n")
    return folder, measured


def _measure(loading: dict[str, Any], edge: int) -> tuple[Seconds, str]:
    """The least times of a backend in processes of its own, and the device that it runs on."""
    code = "import hbr.restoration.batch.backends as b; b.print_times()"
    asked = json.dumps({"loading": loading, "edge": edge})
    starts, tiles, device = [], [], ""
    for _ in range(_TIMES):
        began = time.perf_counter()
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, asked],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=True,
            )
            told = json.loads(done.stdout)
        except (subprocess.SubprocessError, json.JSONDecodeError) as error:
            said = str(getattr(error, "stderr", "") or error).strip()
            why = said.splitlines()[-1] if said else type(error).__name__
            raise BackendError(
                f"the backend {loading['backend']} cannot be measured: {why}"
            ) from None
        seconds: list[float] = told["seconds"]
        tiles.append(min(seconds))
        # the first tile takes longer, which belongs to the start
        starts.append(time.perf_counter() - began - sum(seconds[1:]) - min(seconds))
        device = told["device"]
    return Seconds(start=round(min(starts), 3), tile=round(min(tiles), 4)), device


def print_times() -> None:
    """Write the seconds of three tiles as JSON to stdout: a process of `_measure`."""
    asked = json.loads(sys.argv[1])
    restorer = Restorer.from_pretrained(**asked["loading"])
    shape = (asked["edge"], asked["edge"], 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    seconds = [restorer(noise).timings["model"] for _ in range(3)]
    sys.stdout.write(json.dumps({"seconds": seconds, "device": str(restorer.device)}))


def _read_measured(folder: Path) -> MeasuredBackends | None:
    """The measurements of this machine; None if there are none.

    Raises:
        BackendError: they are damaged, of other versions or of another machine.
    """
    try:
        measured = from_dict(
            MeasuredBackends, json.loads((folder / MEASURED).read_text(encoding="utf-8"))
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # among them ConfigError
        raise BackendError(
            f"{folder / MEASURED} is damaged ({one_line(error, 100)}); `hbr warmup` makes it again"
        ) from None
    if missing := _ALWAYS - measured.seconds.keys():
        raise BackendError(
            f"{folder / MEASURED} is damaged (it lacks {min(missing)}); `hbr warmup` makes it again"
        )
    check_circumstances(measured.made_with, f"{folder / MEASURED} was made", _circumstances())
    return measured


def _circumstances() -> dict[str, str]:
    """What measurements hold for: those of the graph, OpenVINO and the number of threads."""
    return {
        **circumstances(),
        "openvino": installed_version("openvino") or "none",
        "threads": str(threads()),
    }


def _needs_torch(settings: RestoreSettings) -> bool:
    """Whether more than tiles of the photo is asked for: a graph cannot, or it was not measured."""
    maps = {settings.pose, settings.attention} - {"auto", "none"}
    texts = settings.prompt is not None or settings.sampling is not None
    return texts or bool(maps) or settings.people != "off"


def _native_tiles(plan: BatchPlan, capabilities: Capabilities, settings: RestoreSettings) -> float:
    """Tiles of a job, by its photos' headers, in tiles of the native size."""
    jobs = (*plan.jobs, *plan.finished)
    if len(jobs) > _PHOTOS:
        return _MANY
    plans = planned_tiles(jobs, capabilities, settings)
    return sum(tile_pixels(p) * len(p) for p in plans) / capabilities.native_size**2
