"""CMYK without a profile: offset printing on coated paper, as a profile for LittleCMS.

Colours of the solid inks and their overprints: ISO 12647-2:2004/Amd 1:2007, paper types 1 and 2,
table 2 (CIELAB, black backing). Between them: Neugebauer's mixture, with the tone value increase of
the same standard (curve A for the chromatic inks, B for black).
"""

from __future__ import annotations

import itertools
import struct
from functools import lru_cache

import numpy as np

from hbr.image.profiles import D50, assemble_profile, s15

_PAPER = (95.0, 0.0, -3.0)
_BLACK = (16.0, 0.0, 0.0)
# by (cyan, magenta, yellow), each absent or solid
_SOLIDS: dict[tuple[int, ...], tuple[float, float, float]] = {
    (0, 0, 0): _PAPER,
    (1, 0, 0): (55.0, -37.0, -50.0),
    (0, 1, 0): (48.0, 74.0, -3.0),
    (0, 0, 1): (89.0, -5.0, 93.0),
    (0, 1, 1): (47.0, 68.0, 48.0),
    (1, 0, 1): (50.0, -65.0, 27.0),
    (1, 1, 0): (24.0, 22.0, -46.0),
    (1, 1, 1): (23.0, 0.0, 0.0),
}
_GAIN = np.array([0.14, 0.14, 0.14, 0.17])  # of a tone of a half, by ink
_GRID = 11
_LAB16 = np.array([652.8, 256, 256])  # 16 bits of version 2: L* of 100 is 0xFF00


@lru_cache(maxsize=1)
def press_profile() -> bytes:
    """An ICC profile, version 2, from CMYK to CIELAB relative to the paper."""
    steps = np.linspace(0, 1, _GRID)
    inks = np.stack(np.meshgrid(*[steps] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    lab = _mixture(inks)
    encoded = (lab + np.array([0, 128, 128])) * _LAB16
    table = np.rint(np.clip(encoded, 0, 65535)).astype(">u2").tobytes()
    straight = struct.pack(">2H", 0, 65535)
    unity = s15(np.eye(3).ravel())
    lut = b"mft2\0\0\0\0" + bytes([4, 3, _GRID, 0]) + unity + struct.pack(">2H", 2, 2)
    lut += straight * 4 + table + straight * 3
    white = b"XYZ \0\0\0\0" + s15(D50)
    tags = {b"wtpt": white, b"A2B0": lut, b"A2B1": lut}
    return assemble_profile(tags, b"CMYK", device=b"prtr", to=b"Lab ", version=0x02400000)


def _mixture(inks: np.ndarray) -> np.ndarray:
    """[n, 4] inks in [0, 1] → [n, 3] CIELAB, paper at L* = 100."""
    covered = inks + 4 * _GAIN * inks * (1 - inks)
    total = np.zeros((len(inks), 3))
    for corner in itertools.product((0, 1), repeat=4):
        share = np.where(corner, covered, 1 - covered).prod(axis=1)
        total += share[:, None] * _solid(corner)
    return _to_lab(total)


def _solid(corner: tuple[int, ...]) -> np.ndarray:
    """XYZ of an overprint relative to the paper; black on top of others lets a little through."""
    paper = _from_lab(_PAPER)
    below = _from_lab(_SOLIDS[corner[:3]]) / paper
    return below * (_from_lab(_BLACK) / paper if corner[3] else 1)


def _from_lab(lab: tuple[float, float, float]) -> np.ndarray:
    """CIELAB → XYZ relative to D50."""
    middle = (lab[0] + 16) / 116
    f = np.array([middle + lab[1] / 500, middle, middle - lab[2] / 200])
    return np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))


def _to_lab(xyz: np.ndarray) -> np.ndarray:
    """[n, 3] XYZ relative to white → CIELAB."""
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack(
        [116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1
    )
