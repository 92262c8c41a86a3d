"""Training: photos, degradations and a model configuration → a checkpoint."""

from hbr.training.config import TrainConfig
from hbr.training.loop import Trainer

__all__ = ["TrainConfig", "Trainer"]
