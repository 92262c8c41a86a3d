"""Photos × degradations × a model → a checkpoint."""

from hbr.training.config import TrainConfig
from hbr.training.loop import Trainer

__all__ = ["TrainConfig", "Trainer"]
