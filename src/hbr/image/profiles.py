"""Making ICC profiles of primaries and a tone curve.

Source: ICC.1:2022, sections 7 and 10; linear Bradford adaptation (annex E) to D50.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from hbr.image.colour import ProfileError, srgb_to_linear

XY = tuple[float, float]
Chromaticities = tuple[XY, XY, XY, XY]
"""White, red, green and blue in CIE xy."""

D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def make_profile(
    places: Chromaticities, gamma: float | None, space: str = "RGB", *, full_range: bool = True
) -> bytes:
    """An ICC profile, version 4, of three primaries and one tone curve.

    Args:
        places: white, red, green and blue in xy.
        gamma: the exponent from encoded values to light, or None for the sRGB curve.
        space: `RGB` or `GRAY`.
        full_range: False if black is at 16/255 and white at 235/255.

    Raises:
        ProfileError: the primaries lie on one line, or the white is not a colour.
    """
    curve = _curve_tag(gamma, full_range=full_range)
    tags = {
        b"desc": _text_tag("hbr: as stated in the file"),
        b"cprt": _text_tag("No copyright, use freely"),
        b"wtpt": b"XYZ \0\0\0\0" + s15(D50),
    }
    if space == "GRAY":
        return assemble_profile(tags | {b"kTRC": curve}, b"GRAY")
    to_xyz, adapted = _to_d50(places)
    tags[b"chad"] = b"sf32\0\0\0\0" + s15(adapted.ravel())
    for column, letter in enumerate((b"r", b"g", b"b")):
        tags[letter + b"XYZ"] = b"XYZ \0\0\0\0" + s15(to_xyz[:, column])
        tags[letter + b"TRC"] = curve
    return assemble_profile(tags, b"RGB ")


def _to_d50(places: Chromaticities) -> tuple[np.ndarray, np.ndarray]:
    """[3, 3] linear RGB → XYZ relative to D50, and the adaptation that leads there."""
    white, *primaries = (np.array([x, y, 1 - x - y], np.float64) for x, y in places)
    try:
        if white[1] <= 0:
            raise ProfileError("its white is not a colour")
        white = white / white[1]
        columns = np.stack(primaries, axis=1)
        columns = columns * np.linalg.solve(columns, white)
    except np.linalg.LinAlgError:
        raise ProfileError("its primaries lie on one line") from None
    scale = np.diag((_BRADFORD @ D50) / (_BRADFORD @ white))
    adapted = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD
    if not np.isfinite(adapted @ columns).all() or np.abs(adapted @ columns).max() > 100:
        raise ProfileError("its primaries lie on one line")
    return adapted @ columns, adapted


def _curve_tag(gamma: float | None, *, full_range: bool) -> bytes:
    if not full_range:
        encoded = np.clip((np.linspace(0, 255, 4096) - 16) / 219, 0, 1)
        light = srgb_to_linear(encoded) if gamma is None else encoded**gamma
        table = np.rint(light * 65535).astype(">u2")
        return b"curv\0\0\0\0" + struct.pack(">I", len(table)) + table.tobytes()
    if gamma is not None:
        return b"para\0\0\0\0" + struct.pack(">HH", 0, 0) + s15([gamma])
    srgb = [2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045]
    return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + s15(srgb)


def s15(values: Sequence[float] | np.ndarray) -> bytes:
    """Numbers as ICC's s15Fixed16."""
    return struct.pack(f">{len(values)}i", *(round(float(v) * 65536) for v in values))


def _text_tag(text: str) -> bytes:
    words = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(words), 28) + words


def assemble_profile(
    tags: dict[bytes, bytes],
    space: bytes,
    *,
    device: bytes = b"mntr",
    to: bytes = b"XYZ ",
    version: int = 0x04200000,
) -> bytes:
    """The header, the table of tags, and their contents, the same content once."""
    at = 132 + 12 * len(tags)
    places: dict[bytes, int] = {}
    table, body = b"", b""
    for name, content in tags.items():
        if content not in places:
            places[content] = at + len(body)
            body += content + b"\0" * (-len(content) % 4)
        table += struct.pack(">4sII", name, places[content], len(content))
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"\0" * 4, version, device, space, to)
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + s15(D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
