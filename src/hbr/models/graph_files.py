"""The graphs of models on this machine.

A graph belongs to a model file, a fidelity and a machine, and has a folder of its own beside the
fetched weights:

    graph.onnx      the model for a tile of any size, in operators of ONNX alone
    HxW.onnx        optimised by ONNX Runtime for tiles of the native size and for this processor
    card.json       what it was made of and with (`GraphCard`)
    int8.onnx       quantised, with the scales of a calibration, if there was one
    calibration.json  what it was made of and with (`Calibration`)
    measured.json   how long the backends take, if measured (`hbr.restoration.batch.backends`)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.config import ConfigError, from_dict, to_dict
from hbr.devices import processor_name
from hbr.errors import ExitCode, HbrError, one_line
from hbr.files import claim, making_folder
from hbr.files import sha256 as file_sha256
from hbr.models.fidelity import choose_fidelity
from hbr.models.files import read_header
from hbr.models.graphs import (
    GRAPH,
    INT8_GRAPH,
    BackendError,
    GraphModel,
    check_installed,
    check_of_hbr,
    openvino_is_faster_in_bfloat16,
)
from hbr.models.protocol import Backend, Capabilities
from hbr.version import __version__, installed_version
from hbr.weights import FoundFile, weights_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

CARD, CALIBRATION = "card.json", "calibration.json"
_EDITION = 2
# Begins the rewrite that names a quantised graph.
_INT8 = "int8 "
# What OpenVINO computes in on the CPU.
_OPENVINO_DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True, kw_only=True)
class GraphCard:
    """What a graph is.

    Attributes:
        sha256: of the model file.
        fidelity: of a model with two ends.
        decoder: SHA-256 of the decoder in place of the model's own.
        capabilities: of the model; its only precision is float32, and it takes no prompt.
        made_with: versions and processor, see `circumstances`.
        size: of the graph in bytes.
    """

    sha256: str
    fidelity: float | None
    capabilities: Capabilities
    made_with: dict[str, str]
    size: int
    decoder: str | None = None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How the quantised graph was made (`hbr.restoration.batch.calibration`).

    Attributes:
        sha256: of the quantised graph.
        made_with: versions and processor, see `circumstances`.
        photos: SHA-256 of those that the scales come from.
        layers: number of quantised convolutions.
        psnr: of other photos to the graph in float32, in dB, each.
    """

    sha256: str
    made_with: dict[str, str]
    photos: tuple[str, ...]
    layers: int
    psnr: tuple[float, ...]


_CALIBRATE = "`hbr warmup --model {} --calibrate FOLDER` makes it from photos"


class CalibrationError(HbrError, ValueError):
    """Eight bits are wanted, and there is no calibration that this machine can use."""

    exit_code = ExitCode.USAGE
    http_status = 503


def circumstances() -> dict[str, str]:
    """What a graph holds for: versions, and the processor."""
    packages = {name: installed_version(name) or "none" for name in ("torch", "onnxruntime")}
    return {"edition": str(_EDITION), "hbr": __version__, **packages, "processor": processor_name()}


def graph_folder(sha256: str, fidelity: float | None, decoder: FoundFile | None = None) -> Path:
    """Where the graph of a model file lies on this machine, made or not.

    Machines that share their files have a folder each.

    `sha256` is that of the model file; `decoder` takes the place of the model's own.
    """
    machine = hashlib.sha256(processor_name().encode()).hexdigest()[:8]
    end = "" if fidelity is None else f"-{fidelity!r}"
    end += "" if decoder is None else f"-{decoder.sha256[:16]}"
    return weights_folder() / "graphs" / f"{sha256[:16]}{end}-{machine}"


def read_card(folder: Path, sha256: str, decoder: FoundFile | None = None) -> GraphCard | None:
    """The card of a graph that this machine can use, or None if there is none.

    `sha256` is that of the model file; `decoder` takes the place of the model's own.

    Raises:
        BackendError: there is one, but it is damaged, of other versions or of another machine.
    """
    try:
        text = (folder / CARD).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError(f"the graph in {folder} cannot be read: {one_line(error)}") from None
    try:
        card = from_dict(GraphCard, json.loads(text))
        intact = (folder / GRAPH).stat().st_size == card.size and card.sha256 == sha256
        intact = intact and card.decoder == (decoder.sha256 if decoder else None)
    except (ConfigError, json.JSONDecodeError, OSError):
        intact = False
    if not intact:
        raise BackendError(f"the graph in {folder} is damaged; `hbr warmup` makes it again")
    check_circumstances(card.made_with, f"the graph in {folder} was made", circumstances())
    return card


def check_circumstances(then: Mapping[str, str], what: str, now: Mapping[str, str]) -> None:
    """Check that something was made with the versions and on the processor of this process.

    `then` are those when it was made, `now` those of this process; `what` it is and how it came
    about, for the message.

    Raises:
        BackendError: it was not.
    """
    for name in now:
        if then.get(name) != now[name]:
            raise BackendError(
                f"{what} with {name} {then.get(name)}, here is {now[name]}; "
                "`hbr warmup` makes it again"
            )


def read_calibration(folder: Path, model: str) -> Calibration:
    """The calibration of a graph.

    Raises:
        CalibrationError: there is none, or it is damaged, of other versions or of another machine.
    """
    remedy = _CALIBRATE.format(model)
    try:
        found = from_dict(
            Calibration, json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
        )
        intact = file_sha256(folder / INT8_GRAPH) == found.sha256
    except FileNotFoundError:
        raise _uncalibrated(model) from None
    except (OSError, ValueError):  # among them ConfigError
        intact = False
    if not intact:
        raise CalibrationError(f"the calibration of {model} in {folder} is damaged; {remedy}")
    try:
        check_circumstances(
            found.made_with, f"the calibration of {model} was made", circumstances()
        )
    except BackendError as error:
        raise CalibrationError(f"{str(error).partition('; ')[0]}; {remedy}") from None
    return found


def calibration_of(rewrites: Sequence[str]) -> str | None:
    """The first digits of the quantised graph's SHA-256, by the provenance; None without one."""
    return next((r.removeprefix(_INT8) for r in rewrites if r.startswith(_INT8)), None)


def _uncalibrated(model: str, why: str = "") -> CalibrationError:
    wanted = f"int8 needs a calibration of {model}" + (f": {why}" if why else "")
    return CalibrationError(f"{wanted}; {_CALIBRATE.format(model)}")


def file_fidelity(path: Path, fidelity: float | None) -> float | None:
    """The fidelity that a model file of hbr is read with; see `choose_fidelity`."""
    return choose_fidelity(path, read_header(path).fidelity, fidelity)


def load_graph(
    model: FoundFile,
    device: str | torch.device,
    dtype: str,
    fidelity: float | None,
    decoder: FoundFile | None = None,
    backend: Backend = "onnx",
) -> tuple[GraphModel, float | None]:
    """The graph of a model file, made now if this machine does not have it, and its fidelity.

    Raises:
        BackendError: the backend is not installed, or the model cannot be a graph.
        CalibrationError: eight bits are wanted, and there is no calibration for them.
        ConfigError: the fidelity is not in [0, 1], or the model has one end; or the decoder is for
            other latents.
        ValueError: another device than the CPU, or a precision that the backend does not have.
        OSError: the folder of the graph cannot be written.
    """
    if str(device) not in ("auto", "cpu"):
        raise ValueError(f"device is {str(device)!r}; the backend {backend} runs on the cpu")
    check_installed(backend)
    check_of_hbr(model.path)
    precision = _precision(model.path, backend, dtype)
    used = file_fidelity(model.path, fidelity)
    folder = graph_folder(model.sha256, used, decoder)
    card: GraphCard | None = None
    try:
        card = read_card(folder, model.sha256, decoder)
    except BackendError as error:
        if precision == "int8":
            raise _uncalibrated(model.path.name, str(error)) from None
        log.warning("%s, now", error)
    rewrites: tuple[str, ...] = ()
    if precision == "int8":
        if card is None:  # a graph that is made anew has no calibration
            raise _uncalibrated(model.path.name)
        rewrites = (f"{_INT8}{read_calibration(folder, model.path.name).sha256[:16]}",)
    card = card or _make(model, used, decoder, folder)
    return GraphModel(folder, card.capabilities, backend, precision, rewrites), used


def _precision(path: Path, backend: Backend, dtype: str) -> str:
    """The precision of a graph; "auto" is bfloat16 where it is faster and the model has it."""
    if backend == "onnx":
        if dtype not in ("auto", "float32"):
            raise ValueError(f"dtype is {dtype!r}; the backend onnx computes in float32")
        return "float32"
    supported = read_header(path).config.capabilities.dtypes
    here = [*(name for name in _OPENVINO_DTYPES if name in supported), "int8"]
    if dtype == "auto":
        return here[0] if openvino_is_faster_in_bfloat16() else "float32"
    if dtype not in here:
        raise ValueError(
            f"dtype is {dtype!r}; the backend openvino computes in one of {', '.join(here)}"
        )
    return dtype


def _make(
    model: FoundFile, fidelity: float | None, decoder: FoundFile | None, folder: Path
) -> GraphCard:
    """Make a graph as a whole or not at all, unless another process just made it."""
    check_installed("onnx", "onnxruntime", "onnx")
    from hbr.models.exporting.graph import write_graph

    with claim(folder, wait=True):
        with contextlib.suppress(BackendError):
            if card := read_card(folder, model.sha256, decoder):
                return card
        with making_folder(folder, replace=True) as part:
            card = GraphCard(
                sha256=model.sha256,
                fidelity=fidelity,
                decoder=decoder.sha256 if decoder else None,
                capabilities=write_graph(model.path, fidelity, part, decoder),
                made_with=circumstances(),
                size=(part / GRAPH).stat().st_size,
            )
            (part / CARD).write_text(json.dumps(to_dict(card), indent=1) + "\n", encoding="utf-8")
    return card
