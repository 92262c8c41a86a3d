"""Models: their protocol, their configurations, and their files.

Names are resolved on first use: the catalogue, configurations and headers of files need no torch.
"""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.models.checkpoint import build, read_checkpoint, save_checkpoint
    from hbr.models.config import RestorerConfig
    from hbr.models.loading import load_model
    from hbr.models.onestep import OneStepRestorer
    from hbr.models.protocol import Capabilities, Conditions, Model
    from hbr.weights import WeightsError, available

_HOMES = {
    "Capabilities": "hbr.models.protocol",
    "Conditions": "hbr.models.protocol",
    "Model": "hbr.models.protocol",
    "OneStepRestorer": "hbr.models.onestep",
    "RestorerConfig": "hbr.models.config",
    "WeightsError": "hbr.weights",
    "available": "hbr.weights",
    "build": "hbr.models.checkpoint",
    "load_model": "hbr.models.loading",
    "read_checkpoint": "hbr.models.checkpoint",
    "save_checkpoint": "hbr.models.checkpoint",
}

__all__ = [
    "Capabilities",
    "Conditions",
    "Model",
    "OneStepRestorer",
    "RestorerConfig",
    "WeightsError",
    "available",
    "build",
    "load_model",
    "read_checkpoint",
    "save_checkpoint",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
