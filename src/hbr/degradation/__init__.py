"""HQ image → LQ image: recipes, their random draws, and the differentiable pipeline."""

from hbr.degradation.jpeg import jpeg, libjpeg
from hbr.degradation.pipeline import Degradation, degrade, draw
from hbr.degradation.recipe import RECIPES, BlurConfig, Recipe, StageConfig

__all__ = [
    "RECIPES",
    "BlurConfig",
    "Degradation",
    "Recipe",
    "StageConfig",
    "degrade",
    "draw",
    "jpeg",
    "libjpeg",
]
