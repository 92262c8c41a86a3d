"""The one-step restorer, its configuration, and its files."""

from hbr.models.catalogue import available
from hbr.models.checkpoint import (
    Checkpoint,
    WeightsError,
    build,
    read_checkpoint,
    save_checkpoint,
    sha256,
)
from hbr.models.config import RestorerConfig
from hbr.models.loading import load_model
from hbr.models.onestep import Capabilities, OneStepRestorer

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
