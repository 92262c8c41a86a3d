"""HQ image → LQ image: recipes, their random draws, and the differentiable pipeline."""

from hbr.degradation.jpeg import jpeg, libjpeg
from hbr.degradation.motion import Motion
from hbr.degradation.pipeline import Degradation, degrade, draw
from hbr.degradation.recipe import (
    RECIPES,
    BlurConfig,
    MotionConfig,
    Recipe,
    StageConfig,
    find_recipe,
    weakened,
)
from hbr.degradation.regions import Regions

__all__ = [
    "RECIPES",
    "BlurConfig",
    "Degradation",
    "Motion",
    "MotionConfig",
    "Recipe",
    "Regions",
    "StageConfig",
    "degrade",
    "draw",
    "find_recipe",
    "jpeg",
    "libjpeg",
    "weakened",
]
