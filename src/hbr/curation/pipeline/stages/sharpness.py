"""Stages b and c: sharp enough, and large enough."""

from __future__ import annotations

import math

import cv2
import numpy as np

from hbr.curation.config import SharpnessConfig, SizeConfig
from hbr.curation.record import Record


def laplacian_variance(grey: np.ndarray, edge: int = 0) -> float:
    """The variance of the 4-neighbour Laplacian of [h, w] uint8 grey levels.

    Args:
        grey: the region; BT.601 luma.
        edge: a region whose longer edge is above this is first shrunk to it by area averaging; 0
            takes it as it is.

    Source: J. L. Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000.
    """
    height, width = grey.shape
    if edge and max(height, width) > edge:
        scale = edge / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S, ksize=1))
    return float(np.ravel(deviation)[0]) ** 2


def judge_sharpness(rows: list[Record], grey: np.ndarray, config: SharpnessConfig) -> list[Record]:
    """Measure each candidate, or the image once for all; stop what is blurred, or too sharp.

    Args:
        rows: of one image.
        grey: [h, w] uint8, the image.
        config: threshold and ceiling, and the region that they apply to.
    """
    whole = None
    if config.region == "image" and any(row.alive for row in rows):
        whole = laplacian_variance(grey, config.edge)

    def judge(row: Record) -> Record:
        value = whole
        if value is None:
            x0, y0, x1, y1 = row.box
            region = grey[math.floor(y0) : math.ceil(y1), math.floor(x0) : math.ceil(x1)]
            value = laplacian_variance(region, config.edge)
        said = f"variance of the Laplacian {value:.1f}"
        if value < config.threshold:
            detail = f"{said} below {config.threshold:g}"
            return row.stopped("sharpness", "blurred", detail, sharpness=value)
        if config.ceiling is not None and value > config.ceiling:
            detail = f"{said} above {config.ceiling:g}"
            return row.stopped("sharpness", "sharp", detail, sharpness=value)
        return row.passed("sharpness", sharpness=value)

    return [judge(row) if row.alive else row for row in rows]


def judge_size(rows: list[Record], config: SizeConfig) -> list[Record]:
    """Stop people of too few pixels."""

    def judge(row: Record) -> Record:
        x0, y0, x1, y1 = row.box
        shorter, longer = sorted((x1 - x0, y1 - y0))
        if longer < config.longer:
            return row.stopped("size", "small", f"longer edge {longer:.0f} below {config.longer}")
        if shorter < config.shorter:
            detail = f"shorter edge {shorter:.0f} below {config.shorter}"
            return row.stopped("size", "small", detail)
        return row.passed("size")

    return [judge(row) if row.alive else row for row in rows]
