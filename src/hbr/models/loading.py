"""Loading a model by its name in the catalogue or from its file."""

from pathlib import Path
from typing import cast

import torch

from hbr.models.checkpoint import load
from hbr.models.protocol import Model
from hbr.weights import find_model


def load_model(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    fidelity: float | None = None,
) -> Model:
    """Load a model for inference: eval, without gradients, channels last.

    Args:
        name_or_path: a name of the catalogue (`available()`) or a `.safetensors` file of hbr.
        device: where it runs.
        dtype: of its weights and, except for the one step itself, of the computation.
        fidelity: of a model with two ends, from 0, sharp, to 1, faithful; None is its default.

    Raises:
        ConfigError: the fidelity is not in [0, 1], or the model has one end.
        WeightsError: it is unknown, missing, damaged or in another format.
    """
    return cast(Model, load(find_model(name_or_path), device, dtype, fidelity))
