"""The named recipes, and those of YAML files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hbr.config import ConfigError, load_yaml
from hbr.degradation.recipe import BlurConfig, FadingConfig, MotionConfig, Recipe, StageConfig

REAL_ESRGAN = Recipe(
    stages=(
        StageConfig(),
        StageConfig(
            blur=BlurConfig(prob=0.8, sigma=(0.2, 1.5)),
            resize_probs=(0.3, 0.4, 0.3),
            resize_range=(0.3, 1.2),
            noise_sigma=(1.0, 25.0),
            poisson_scale=(0.05, 2.5),
        ),
    ),
    final_sinc_prob=0.8,
    scale=4,
)

LIGHT = Recipe(
    stages=(
        StageConfig(
            blur=BlurConfig(prob=0.5, sizes=(3, 9), sinc_prob=0.0, sigma=(0.2, 1.2)),
            resize_probs=(0.0, 0.3, 0.7),
            resize_range=(0.6, 1.0),
            noise_prob=0.5,
            noise_sigma=(0.5, 6.0),
            poisson_scale=(0.05, 0.5),
            jpeg_prob=0.7,
            jpeg_quality=(60.0, 98.0),
        ),
    ),
)

# Real photos were made smaller with a filter, nearly always: a model that is trained on aliasing
# alone learns to blur it away, and leaves soft photos soft.
_FILTERED = (1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
_ANY_MODE = (1.0, 0.3, 0.3, 0.3, 1.0, 1.0, 1.0)

# What happens to photos outside of laboratories: an old or cheap camera, its own sharpening and
# JPEG, made smaller for the web and saved again, enlarged and saved a third time.
PHOTO = Recipe(
    stages=(
        StageConfig(
            blur=BlurConfig(
                prob=0.6, sinc_prob=0.0, sigma=(0.3, 1.8), defocus_prob=0.4, shake_prob=0.3
            ),
            resize_probs=(0.0, 0.3, 0.7),
            resize_range=(0.5, 1.0),
            resize_modes=_ANY_MODE,
            noise_prob=0.9,
            camera_prob=0.9,
            noise_sigma=(1.0, 12.0),
            poisson_scale=(0.05, 1.0),
            grey_prob=0.2,
            sharpen_prob=0.4,
            jpeg_prob=0.9,
            jpeg_quality=(50.0, 97.0),
            jpeg_shift_prob=1.0,
        ),
        StageConfig(
            blur=BlurConfig(prob=0.2, sizes=(3, 9), sinc_prob=0.1, sigma=(0.2, 0.8)),
            resize_probs=(0.1, 0.7, 0.2),
            resize_range=(0.3, 1.3),
            resize_modes=_ANY_MODE,
            noise_prob=0.15,
            noise_sigma=(0.5, 5.0),
            poisson_scale=(0.05, 0.5),
            sharpen_prob=0.3,
            sharpen_amount=(0.2, 1.0),
            jpeg_prob=0.9,
            jpeg_quality=(35.0, 95.0),
            jpeg_shift_prob=1.0,
        ),
    ),
    final_modes=_ANY_MODE,
    version=3,
    jpeg_last_prob=0.4,
    motion=MotionConfig(prob=0.1, length=(0.01, 0.05)),
    fading=FadingConfig(prob=0.05),
)

# A photo of little damage that is merely small, enlarged as `hbr restore --scale` does it. Most
# draws have nothing but the filter and the JPEG: where noise, blur and sharpening are common, a
# model learns to leave soft photos soft.
SMALL = Recipe(
    stages=(
        StageConfig(
            blur=BlurConfig(prob=0.15, sizes=(3, 9), sinc_prob=0.0, sigma=(0.3, 0.8)),
            resize_probs=(0.0, 0.25, 0.75),
            resize_range=(0.6, 1.0),
            resize_modes=_FILTERED,
            noise_prob=0.15,
            camera_prob=0.8,
            camera_sigma=(0.5, 3.0),
            noise_sigma=(0.5, 3.0),
            poisson_scale=(0.05, 0.3),
            sharpen_prob=0.15,
            sharpen_amount=(0.2, 0.6),
            jpeg_prob=0.8,
            jpeg_quality=(50.0, 97.0),
            jpeg_shift_prob=1.0,
        ),
    ),
    scales=(2, 3, 4),
    final_modes=_FILTERED,
    back_modes=(0.0, 0.0, 1.0, 0.0, 0.3),
    jpeg_last_prob=1.0,
    jpeg="libjpeg",
    version=4,
)

# Noise, JPEG, or both, at the photo's own size: what blind denoising and deblocking are trained on
# (DnCNN, 2017). The JPEG is that of real files, whose decoders smooth the chroma.
NOISE_JPEG = Recipe(
    stages=(
        StageConfig(
            blur=BlurConfig(
                prob=0.15,
                sizes=(3, 13),
                sinc_prob=0.0,
                sigma=(0.3, 2.0),
                defocus_prob=0.2,
                shake_prob=0.2,
            ),
            resize_probs=(0.0, 0.0, 1.0),
            noise_prob=0.6,
            camera_prob=0.4,
            camera_sigma=(0.5, 25.0),
            noise_sigma=(1.0, 50.0),
            poisson_scale=(0.05, 3.0),
            grey_prob=0.2,
            jpeg_prob=0.75,
            jpeg_quality=(10.0, 95.0),
            jpeg_shift_prob=0.5,
        ),
    ),
    jpeg="libjpeg",
)

# A good photo as the web has it: a JPEG file of middling to high quality, and what noise there was.
WEB = Recipe(
    stages=(
        StageConfig(
            blur=BlurConfig(prob=0.0),
            resize_probs=(0.0, 0.0, 1.0),
            noise_prob=0.25,
            camera_prob=0.8,
            camera_sigma=(0.5, 4.0),
            noise_sigma=(0.5, 4.0),
            poisson_scale=(0.05, 0.3),
            jpeg_prob=1.0,
            jpeg_quality=(55.0, 97.0),
            jpeg_shift_prob=0.5,
        ),
    ),
    jpeg="libjpeg",
)

# One stage at the size of the image, as CodeFormer has it: blur, smaller, noise, JPEG, and back.
_BLUR_OF_CODEFORMER = BlurConfig(
    sizes=(41, 41), shapes=(0.5, 0.5, 0.0, 0.0, 0.0, 0.0), sinc_prob=0.0, sigma=(1.0, 15.0)
)
_STAGE_OF_CODEFORMER = StageConfig(
    blur=_BLUR_OF_CODEFORMER,
    resize_probs=(0.0, 1.0, 0.0),
    resize_range=(1 / 30, 1.0),
    down_uniform_in="divisor",
    resize_modes=(0.0, 1.0, 0.0),
    gaussian_prob=1.0,
    noise_sigma=(0.0, 20.0),
    grey_prob=0.0,
    jpeg_quality=(30.0, 90.0),
)

# CodeFormer (2022), §4.1: faces are hidden far deeper than a body can be.
CODEFORMER = Recipe(
    stages=(_STAGE_OF_CODEFORMER,),
    final_modes=(0.0, 1.0, 0.0),
    back_modes=(0.0, 1.0, 0.0),
    jpeg_last_prob=0.0,
    jpeg="libjpeg",
)

# The ranges that DiffBIR (2023) trains its second stage with.
DIFFBIR = replace(
    CODEFORMER,
    stages=(
        replace(
            _STAGE_OF_CODEFORMER,
            blur=replace(_BLUR_OF_CODEFORMER, sigma=(0.1, 12.0)),
            resize_range=(1 / 12, 1.0),
            noise_sigma=(0.0, 15.0),
            jpeg_quality=(30.0, 100.0),
        ),
    ),
)

RECIPES = {
    "real-esrgan": REAL_ESRGAN,
    "real-esrgan-2-4": replace(REAL_ESRGAN, scales=(2, 3, 4)),
    "real-esrgan-libjpeg": replace(REAL_ESRGAN, jpeg="libjpeg"),
    "codeformer": CODEFORMER,
    "diffbir": DIFFBIR,
    # in the spirit of HAODiff (2025): both damages in one image
    "motion-blur": replace(REAL_ESRGAN, motion=MotionConfig()),
    "photo": PHOTO,
    "small": SMALL,
    "noise-jpeg": NOISE_JPEG,
    "web": WEB,
    "light": LIGHT,
    "none": Recipe(),
}


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, or of this YAML file.

    Raises:
        ConfigError: there is none, or the file does not fit `Recipe`.
    """
    if name in RECIPES:
        return RECIPES[name]
    if Path(name).suffix.lower() in (".yaml", ".yml"):
        return load_yaml(Recipe, name)
    raise ConfigError(
        f"recipe is {name!r}; it must be one of {', '.join(RECIPES)}, or a .yaml file"
    )
