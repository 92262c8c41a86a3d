"""ICC profiles of the matrix and curve kinds, to sRGB and back, in float32 at any depth.

Linear light is taken relative to white, as every profile of this kind is: all share the D50 white
of the connection space, so one 3x3 matrix goes from one set of primaries to another.
Source: ICC.1:2022, sections 7 (tags), 10.6 (curveType), 10.18 (parametricCurveType), F.3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hbr.errors import HbrError

LEVELS = 65536
# One step of 8 bits: closer profiles are indistinguishable from sRGB.
NEAR_SRGB = 1.0 / 255
# The D50-adapted sRGB primaries, columns R, G, B (IEC 61966-2-1 through Bradford).
SRGB_TO_XYZ = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)


class ProfileError(HbrError, ValueError):
    """A profile that cannot be used for these pixels; the message says why."""

    http_status = 422


def srgb_to_linear(v: np.ndarray) -> np.ndarray:
    """The sRGB curve: encoded [0, 1] → linear light [0, 1]."""
    return np.where(v <= 0.04045, v / 12.92, ((np.maximum(v, 0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(v: np.ndarray) -> np.ndarray:
    """Linear light [0, 1] → encoded [0, 1]."""
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * np.maximum(v, 0) ** (1 / 2.4) - 0.055)


@dataclass(frozen=True, eq=False)
class Profile:
    """A colour space that converts to sRGB and back.

    Attributes:
        curves: [3, 65536] float32, encoded value → linear light, never falling.
        matrix: [3, 3] float32, linear RGB of this space → linear sRGB.
    """

    curves: np.ndarray
    matrix: np.ndarray

    def to_srgb(self, pixels: np.ndarray) -> np.ndarray:
        """[..., 3] uint8 or uint16 in this space → float32 sRGB, clipped to [0, 1]."""
        index = pixels.astype(np.int32) * (257 if pixels.dtype == np.uint8 else 1)
        linear = np.stack([self.curves[c][index[..., c]] for c in range(3)], axis=-1)
        return linear_to_srgb(np.clip(linear @ self.matrix.T, 0, 1)).astype(np.float32)

    def from_srgb(self, srgb: np.ndarray) -> np.ndarray:
        """[..., 3] float32 sRGB in [0, 1] → float32 in this space, clipped to [0, 1]."""
        back = np.linalg.inv(self.matrix.astype(np.float64)).astype(np.float32)
        linear = np.clip(srgb_to_linear(srgb).astype(np.float32) @ back.T, 0, 1)
        grid = np.linspace(0, 1, LEVELS)
        out = [np.interp(linear[..., c], self.curves[c], grid) for c in range(3)]
        return np.stack(out, axis=-1).astype(np.float32)


@lru_cache(maxsize=8)
def load_profile(icc: bytes, space: str) -> Profile | None:
    """The conversion of an ICC profile, or None where pixels pass through as they are.

    `space` is that of the pixels, "RGB" or "GRAY".

    Returns:
        None for profiles close to sRGB and for those made of look-up tables.

    Raises:
        ProfileError: the profile is broken or for another kind of pixels.
    """
    try:
        tags = _tags(icc, space)
        if space == "GRAY":
            if "kTRC" not in tags:
                return None
            curves, matrix = np.stack([_curve(tags["kTRC"])] * 3), np.eye(3)
        else:
            wanted = ("rXYZ", "gXYZ", "bXYZ", "rTRC", "gTRC", "bTRC")
            if any(name not in tags for name in wanted):
                return None
            curves = np.stack([_curve(tags[c + "TRC"]) for c in "rgb"])
            matrix = _matrix([_xyz(tags[c + "XYZ"]) for c in "rgb"])
    except (struct.error, UnicodeDecodeError, ValueError, IndexError, OverflowError) as error:
        raise ProfileError(str(error) or "it is broken") from None
    profile = Profile(curves.astype(np.float32), matrix.astype(np.float32))
    return None if _is_srgb(profile) else profile


def code_points(icc: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics (ITU-T H.273) if a profile states them."""
    try:
        tag = _tags(icc, icc[16:20].decode("ascii").strip()).get("cicp", b"")
    except (ProfileError, struct.error, UnicodeDecodeError):
        return None
    return (tag[8], tag[9]) if tag[:4] == b"cicp" and len(tag) >= 12 else None


def _tags(icc: bytes, space: str) -> dict[str, bytes]:
    if len(icc) < 132 or icc[36:40] != b"acsp":
        raise ProfileError("it is not an ICC profile")
    (length,) = struct.unpack_from(">I", icc, 0)
    if length > len(icc):
        raise ProfileError("it is cut short")
    found = icc[16:20].decode("ascii").strip()
    if found != space:
        raise ProfileError(f"it is for {found} pixels and these are {space}")
    (n,) = struct.unpack_from(">I", icc, 128)
    if n > 200:
        raise ProfileError(f"it claims {n} tags")
    tags = {}
    for i in range(n):
        name, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * i)
        if offset + size > len(icc):
            raise ProfileError("it is cut short")
        tags[name.decode("latin-1")] = icc[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> np.ndarray:
    if tag[:4] != b"XYZ ":
        raise ProfileError("a primary of it is not a colour")
    return np.array(struct.unpack_from(">3i", tag, 8)) / 65536


def _matrix(primaries: list[np.ndarray]) -> np.ndarray:
    to_srgb = np.linalg.inv(SRGB_TO_XYZ) @ np.stack(primaries, axis=1)
    white = to_srgb.sum(axis=1)
    if not np.isfinite(to_srgb).all() or np.abs(white - 1).max() > 0.1:
        raise ProfileError("its primaries do not add up to white")
    # The rest of `white - 1` is rounding in the file; dividing by it keeps greys exactly grey.
    to_srgb /= white[:, None]
    if abs(np.linalg.det(to_srgb)) < 1e-3:
        raise ProfileError("its primaries lie on one line")
    return to_srgb


def _curve(tag: bytes) -> np.ndarray:
    x = np.linspace(0, 1, LEVELS)
    if tag[:4] == b"curv":
        (n,) = struct.unpack_from(">I", tag, 8)
        if n == 0:
            y = x
        elif n == 1:
            y = x ** (struct.unpack_from(">H", tag, 12)[0] / 256)
        else:
            table = np.frombuffer(tag, ">u2", count=n, offset=12) / 65535
            y = np.interp(x, np.linspace(0, 1, n), table)
    elif tag[:4] == b"para":
        y = _parametric(tag, x)
    else:
        raise ProfileError("a curve of it is of an unknown kind")
    y = np.maximum.accumulate(np.clip(y, 0, 1))
    if not np.isfinite(y).all() or y[-1] - y[0] < 0.5:
        raise ProfileError("a curve of it is not a tone curve")
    return y


def _parametric(tag: bytes, x: np.ndarray) -> np.ndarray:
    (kind,) = struct.unpack_from(">H", tag, 8)
    if kind > 4:
        raise ProfileError("a curve of it is of an unknown kind")
    count = (1, 3, 4, 5, 7)[kind]
    given = [v / 65536 for v in struct.unpack_from(f">{count}i", tag, 12)]
    g, a, b, c, d, e, f = given + [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0][count:]
    if kind in (1, 2):  # the break is where the power's base becomes zero, and c is an offset
        if a == 0:
            raise ProfileError("a curve of it is not a tone curve")
        offset = c if kind == 2 else 0.0
        d, e, f, c = -b / a, offset, offset, 0
    with np.errstate(all="ignore"):  # nonsensical curves are refused by their values
        power = np.maximum(a * x + b, 0) ** g + e
    return power if kind == 0 else np.where(x >= d, power, c * x + f)


def _is_srgb(profile: Profile) -> bool:
    axis = np.linspace(0, 65535, 9).astype(np.uint16)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1)
    return float(np.abs(profile.to_srgb(grid) - grid / 65535).max()) < NEAR_SRGB
