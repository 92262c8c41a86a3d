"""HQ image → LQ image: recipes, their random draws, and the differentiable pipeline."""

from hbr.degradation.drawing import Degradation, draw
from hbr.degradation.jpeg import jpeg, libjpeg
from hbr.degradation.motion import Motion
from hbr.degradation.named_recipes import RECIPES, find_recipe
from hbr.degradation.pipeline import degrade, sharpen
from hbr.degradation.recipe import (
    BlurConfig,
    FadingConfig,
    MotionConfig,
    Recipe,
    StageConfig,
    weakened,
)
from hbr.degradation.regions import Regions

__all__ = [
    "RECIPES",
    "BlurConfig",
    "Degradation",
    "FadingConfig",
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
    "sharpen",
    "weakened",
]
