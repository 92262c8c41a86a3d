"""The graphs of models on this machine.

A graph belongs to a model file, a fidelity and a machine, and has a folder of its own beside the
fetched weights:

    graph.onnx      the model for a tile of any size, optimised for any processor
    HxW.onnx        optimised for tiles of the model's native size and for this processor
    card.json       what it was made of and with (`GraphCard`)
    measured.json   how long the backends take, if measured (`hbr.restoration.batch.backends`)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from hbr.config import ConfigError, from_dict, to_dict
from hbr.devices import processor_name
from hbr.errors import one_line
from hbr.files import claim, making_folder
from hbr.models.fidelity import choose_fidelity
from hbr.models.files import is_of_hbr, read_header
from hbr.models.graphs import GRAPH, BackendError, GraphModel, check_installed
from hbr.models.protocol import Capabilities
from hbr.version import __version__
from hbr.weights import FoundFile, weights_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

CARD = "card.json"
_EDITION = 1


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


def circumstances() -> dict[str, str]:
    """What a graph and its measurements hold for: versions, and the processor."""
    packages = {name: _version(name) for name in ("torch", "onnxruntime")}
    return {
        "edition": str(_EDITION),
        "hbr": __version__,
        **packages,
        "processor": processor_name(),
    }


def graph_folder(sha256: str, fidelity: float | None, decoder: FoundFile | None = None) -> Path:
    """Where the graph of a model file lies on this machine, made or not.

    Machines that share their files have a folder each.

    Args:
        sha256: of the model file.
        fidelity: of a model with two ends.
        decoder: in place of the model's own.
    """
    machine = hashlib.sha256(processor_name().encode()).hexdigest()[:8]
    end = "" if fidelity is None else f"-{fidelity!r}"
    end += "" if decoder is None else f"-{decoder.sha256[:16]}"
    return weights_folder() / "graphs" / f"{sha256[:16]}{end}-{machine}"


def read_card(folder: Path, sha256: str, decoder: FoundFile | None = None) -> GraphCard | None:
    """The card of a graph that this machine can use, or None if there is none.

    Args:
        folder: of the graph.
        sha256: of the model file.
        decoder: in place of the model's own.

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
    check_circumstances(card.made_with, f"the graph in {folder} was made")
    return card


def check_circumstances(then: Mapping[str, str], what: str) -> None:
    """Check that something was made with the versions and on the processor of this process.

    Args:
        then: `circumstances` when it was made.
        what: it is and how it came about, for the message.

    Raises:
        BackendError: it was not.
    """
    now = circumstances()
    for name in now:
        if then.get(name) != now[name]:
            raise BackendError(
                f"{what} with {name} {then.get(name)}, here is {now[name]}; "
                "`hbr warmup` makes it again"
            )


def file_fidelity(path: Path, fidelity: float | None) -> float | None:
    """The fidelity that a model file of hbr is read with; see `choose_fidelity`."""
    return choose_fidelity(path, read_header(path).fidelity, fidelity)


def load_graph(
    model: FoundFile,
    device: str | torch.device,
    dtype: str,
    fidelity: float | None,
    decoder: FoundFile | None = None,
) -> tuple[GraphModel, float | None]:
    """The graph of a model file, made now if this machine does not have it, and its fidelity.

    Raises:
        BackendError: ONNX Runtime is missing, or the model cannot be a graph.
        ConfigError: the fidelity is not in [0, 1], or the model has one end; or the decoder is for
            other latents.
        ValueError: another device than the CPU, or another precision than float32.
        OSError: the folder of the graph cannot be written.
    """
    if str(device) not in ("auto", "cpu"):
        raise ValueError(f"device is {str(device)!r}; the backend onnx runs on the cpu")
    if dtype not in ("auto", "float32"):
        raise ValueError(f"dtype is {dtype!r}; the backend onnx computes in float32")
    check_installed()
    if not is_of_hbr(model.path):
        raise BackendError(f"{model.path.name} is no model file of hbr and cannot be a graph")
    used = file_fidelity(model.path, fidelity)
    folder = graph_folder(model.sha256, used, decoder)
    card: GraphCard | None = None
    try:
        card = read_card(folder, model.sha256, decoder)
    except BackendError as error:
        log.warning("%s, now", error)
    return GraphModel(folder, (card or _make(model, used, decoder, folder)).capabilities), used


def _make(
    model: FoundFile, fidelity: float | None, decoder: FoundFile | None, folder: Path
) -> GraphCard:
    """Make a graph as a whole or not at all, unless another process just made it."""
    check_installed("onnx")
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


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
