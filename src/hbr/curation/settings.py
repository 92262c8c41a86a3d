"""The settings that finished work depends on: what may be reused, and what a manifest states."""

from __future__ import annotations

from typing import Any

from hbr.config import from_dict, to_dict
from hbr.curation.config import CurationConfig


def plain(config: CurationConfig) -> dict[str, Any]:
    """Plain values of a configuration, the same for equal ones: 100 and 100.0 are both 100.0."""
    return to_dict(from_dict(CurationConfig, to_dict(config)))


# What decides the rows of one image, without looking at any other image.
_PER_IMAGE = ("boxes", "sharpness", "size", "crop", "tagger", "max_pixels")


def per_image_settings(config: CurationConfig) -> dict[str, Any]:
    """What stages a to f depend on; work done with other values of these cannot be reused.

    Devices and batch sizes are left out: moving to a GPU keeps the work that is done.
    """
    values = plain(config)
    settings = {name: values[name] for name in _PER_IMAGE}
    if config.crop.height is None:
        del settings["crop"]["height"]
    if config.limits:
        settings["limits"] = {
            source: {name: value for name, value in own.items() if name != "count"}
            for source, own in sorted(values["limits"].items())
        }
    for model in (settings["boxes"]["detector"], settings["tagger"]):
        if isinstance(model, dict):
            del model["device"], model["batch"]
    quality = values["quality"]
    settings["metrics"] = sorted(quality["metrics"], key=lambda metric: metric["name"])
    settings["all_scores"] = quality["all_scores"]
    for stage in (settings["sharpness"], *settings["metrics"]):
        if stage["ceiling"] is None:
            del stage["ceiling"]
    output = values["output"]
    settings["format"] = output["format"]
    settings["jpeg_quality"] = output["jpeg_quality"] if output["format"] == "jpeg" else None
    return settings
