"""Loading a model by its name in the catalogue or from its file."""

import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from hbr.config import ConfigError
from hbr.devices import release_freed_memory
from hbr.errors import display_name
from hbr.models.checkpoint import assemble, load
from hbr.models.fidelity import choose_fidelity, read_weights
from hbr.models.files import is_of_hbr, read_header
from hbr.models.protocol import Capabilities, Model
from hbr.weights import FoundFile, entries, find_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OpenedModel:
    """A model file that has been looked into, and how its model is loaded.

    Attributes:
        capabilities: what the model supports.
        fidelity: of a file with two ends, its default; else None.
        load: device, precision and fidelity → the model; see `load_model`.
        rewrite: a loaded model → the one that restores for it, and the names of its rewrites.
    """

    capabilities: Capabilities
    fidelity: float | None
    load: Callable[[torch.device, torch.dtype, float | None], Model]
    rewrite: Callable[[Model], tuple[Model, tuple[str, ...]]]


def open_model(path: Path, decoder: FoundFile | None = None) -> OpenedModel:
    """Look into a model file: one of hbr, or a network of another project that spandrel reads.

    Args:
        path: the model file.
        decoder: a decoder's file (`hbr.weights.find_decoder`), to take the place of the model's.

    Raises:
        ConfigError: the decoder is for other latents than the model's.
        WeightsError: a file is missing, damaged, of no known format, or spandrel is needed and not
            installed.
    """
    if decoder is not None:
        return _open_with_decoder(path, decoder)
    if is_of_hbr(path):
        header = read_header(path)
        return OpenedModel(
            header.config.capabilities,
            header.fidelity,
            lambda device, dtype, fidelity: cast(Model, load(path, device, dtype, fidelity)),
            _REWRITERS.get(header.config.kind, _unchanged),
        )
    from hbr.models.spandrel import SpandrelNetwork, read_network

    network = read_network(path)

    def load_network(device: torch.device, dtype: torch.dtype, fidelity: float | None) -> Model:
        choose_fidelity(path, None, fidelity)
        return SpandrelNetwork(network, device, dtype)

    return OpenedModel(network.capabilities, None, load_network, _unchanged)


def _open_with_decoder(path: Path, found: FoundFile) -> OpenedModel:
    from hbr.models.decoder_files import OWN, read_decoder, with_decoder

    if not is_of_hbr(path):
        raise ConfigError(
            f"decoder is {found.name}, but {path.name} is no model file of hbr; leave it out"
        )
    header, decoder = read_header(path), read_decoder(found.path)
    changed, kept = with_decoder(path, header, decoder, found.name)
    if decoder.guessed and found.name not in entries():
        log.warning(
            "%s does not say which latents it decodes; it is taken for a decoder of Stable "
            "Diffusion 1 and 2",
            display_name(found.path),
        )

    def load_both(device: torch.device, dtype: torch.dtype, fidelity: float | None) -> Model:
        added = ((OWN + name, tensor) for name, tensor in decoder.tensors.items())
        tensors = itertools.chain(read_weights(path, kept, fidelity), added)
        made = assemble(changed, tensors, path, device, dtype, torch.channels_last)
        return cast(Model, made)

    rewrite = _REWRITERS.get(header.config.kind, _unchanged)
    return OpenedModel(changed.config.capabilities, header.fidelity, load_both, rewrite)


def load_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    fidelity: float | None = None,
) -> Model:
    """Load a model for inference: eval, without gradients, channels last.

    Args:
        name_or_path: a name of the catalogue (`available()`), a `.safetensors` file of hbr, or
            with the extra `spandrel` a `.pth` or `.safetensors` file of another project.
        device: where it runs.
        dtype: of its weights and, except for the one step itself, of the computation.
        fidelity: of a model with two ends, from 0, sharp, to 1, faithful; None is its default.

    Raises:
        ConfigError: the fidelity is not in [0, 1], or the model has one end.
        WeightsError: it is unknown, missing, damaged or in another format.
    """
    return open_model(find_model(name_or_path)).load(torch.device(device), dtype, fidelity)


def _unchanged(model: Model) -> tuple[Model, tuple[str, ...]]:
    return model, ()


def _rewrite_one_step(model: Model) -> tuple[Model, tuple[str, ...]]:
    from hbr.models.inference.folding import optimize
    from hbr.models.onestep import OneStepRestorer

    folded = optimize(cast(OneStepRestorer, model))
    release_freed_memory()  # of the weights that were replaced
    names = tuple(saving.rewrite for saving in folded.savings)
    if folded.device.type != "cuda":
        return folded, names
    from hbr.models.inference.recorded import REWRITE, RecordedModel

    return RecordedModel(folded), (*names, REWRITE)


_REWRITERS = {"one-step": _rewrite_one_step}
