"""The one-step restorer, its configuration, and its files.

Names are resolved on first use: catalogue, configuration and the heads of files need no torch.
"""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.files import sha256
    from hbr.models.capabilities import Capabilities
    from hbr.models.checkpoint import Checkpoint, build, read_checkpoint, save_checkpoint
    from hbr.models.config import RestorerConfig
    from hbr.models.files import WeightsError
    from hbr.models.loading import load_model
    from hbr.models.onestep import OneStepRestorer
    from hbr.weights import available

_HOMES = {
    "Capabilities": "hbr.models.capabilities",
    "Checkpoint": "hbr.models.checkpoint",
    "OneStepRestorer": "hbr.models.onestep",
    "RestorerConfig": "hbr.models.config",
    "WeightsError": "hbr.models.files",
    "available": "hbr.weights",
    "build": "hbr.models.checkpoint",
    "load_model": "hbr.models.loading",
    "read_checkpoint": "hbr.models.checkpoint",
    "save_checkpoint": "hbr.models.checkpoint",
    "sha256": "hbr.files",
}

__all__ = [
    "Capabilities",
    "Checkpoint",
    "OneStepRestorer",
    "RestorerConfig",
    "WeightsError",
    "available",
    "build",
    "load_model",
    "read_checkpoint",
    "save_checkpoint",
    "sha256",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
