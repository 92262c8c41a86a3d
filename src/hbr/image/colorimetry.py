"""What the numbers in a file mean: code points, gamma, primaries and EXIF, as an ICC profile.

Sources: Portable Network Graphics (Third Edition), W3C, 4.3 and 11.3.2; ITU-T H.273, tables 2 to 4;
DCF 2.0, JEITA CP-3461, for Adobe RGB in EXIF; ICC.1:2022 for the profile that is made.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hbr.errors import PhotoError
from hbr.image.colour import ProfileError, code_points, load_profile
from hbr.image.metadata import EXIF_IFD, byte_order, entries
from hbr.image.notes import Notes
from hbr.image.profiles import Chromaticities, make_profile

_D65, _C, _E, _DCI = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
_SMPTE_170M: Chromaticities = (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_BT_709: Chromaticities = (_D65, (0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
ADOBE_RGB: Chromaticities = (_D65, (0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
# ITU-T H.273, table 2
_PRIMARIES: dict[int, Chromaticities] = {
    1: _BT_709,
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: _SMPTE_170M,
    7: _SMPTE_170M,
    8: (_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: (_E, (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: (_DCI, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
# ITU-T H.273, table 3. The cameras' curves for television (BT.709 and its kin) are shown as sRGB,
# as browsers do.
_SRGB_LIKE = {1, 6, 7, 11, 12, 13, 14, 15}
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_HDR = {16: "PQ", 18: "HLG"}
UNSPECIFIED = 2
# PNG states the sRGB curve as a gamma of 1/2.2; libpng takes gammas this close as the same.
_NEARLY_SRGB_GAMMA = 0.05


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What a file states about its colours.

    Attributes:
        cicp: (colour primaries, transfer characteristics, full range) as in ITU-T H.273.
        cicp_first: the code points count before the profile, as in PNG, and not after it.
        icc: the embedded profile.
        srgb: the file says that it is sRGB.
        gamma: the exponent from encoded values to light, or None.
        chromaticities: white, red, green and blue.
        uncalibrated: EXIF says that the space is not sRGB, and nothing says which it is.
    """

    cicp: tuple[int, int, bool] | None = None
    cicp_first: bool = False
    icc: bytes | None = None
    srgb: bool = False
    gamma: float | None = None
    chromaticities: Chromaticities | None = None
    uncalibrated: bool = False

    @property
    def silent(self) -> bool:
        """Whether the file states nothing."""
        return self == Signals(cicp_first=self.cicp_first)


def png_signals(chunks: Mapping[bytes, bytes], icc: bytes | None) -> Signals:
    """What the chunks of a PNG state; those of a wrong length are ignored."""
    cicp, gamma, places = (chunks.get(kind, b"") for kind in (b"cICP", b"gAMA", b"cHRM"))
    exponent = struct.unpack(">I", gamma)[0] if len(gamma) == 4 else 0
    numbers = [v / 100_000 for v in struct.unpack(">8I", places)] if len(places) == 32 else []
    nearly_srgb = abs(exponent / 45455 - 1) <= _NEARLY_SRGB_GAMMA
    return Signals(
        cicp=(cicp[0], cicp[1], bool(cicp[3])) if len(cicp) == 4 else None,
        cicp_first=True,
        icc=icc,
        srgb=b"sRGB" in chunks,
        gamma=100_000 / exponent if exponent and not nearly_srgb else None,
        chromaticities=chromaticities_of(numbers),
    )


def bmp_signals(data: bytes) -> Signals:
    """What the header of a BMP says, from version 4 on."""
    size = struct.unpack_from("<I", data, 14)[0] if len(data) >= 18 else 0
    if size < 108 or len(data) < 14 + size:
        return Signals()
    kind = data[70:74]
    if kind == b"DEBM" and size >= 124:  # a number, written as "MBED"
        at, length = struct.unpack_from("<II", data, 126)
        return Signals(icc=data[14 + at : 14 + at + length] or None)
    if kind != b"\0\0\0\0":
        return Signals(srgb=True)
    ends = np.array(struct.unpack_from("<9I", data, 74), np.float64).reshape(3, 3)  # XYZ of R, G, B
    if (ends.sum(axis=1) <= 0).any():
        return Signals()
    white, red, green, blue = (
        (x / (x + y + z), y / (x + y + z)) for x, y, z in (ends.sum(0), *ends)
    )
    gamma = struct.unpack_from("<I", data, 110)[0] / 65536
    return Signals(gamma=gamma or None, chromaticities=(white, red, green, blue))


def exif_signals(exif: bytes) -> Signals:
    """What EXIF says: sRGB, Adobe RGB (in the words of DCF), or a space without a name."""
    order = byte_order(exif) or "<"

    def directory(at: int | None) -> dict[int, int]:
        """Where the values of a directory stand, by tag; `at` is where its own place stands."""
        (offset,) = (0,) if at is None else struct.unpack_from(order + "I", exif, at)
        return {tag: place for tag, _, _, place in entries(exif, order, offset)}

    inner = directory(directory(4).get(EXIF_IFD))
    outer = directory(inner.get(0xA005))
    (space,) = struct.unpack_from(order + "H", exif, inner[0xA001]) if 0xA001 in inner else (0,)
    if (1 in outer and exif.startswith(b"R03", outer[1])) or space == 2:
        return Signals(gamma=563 / 256, chromaticities=ADOBE_RGB)
    return Signals(srgb=space == 1, uncalibrated=space == 0xFFFF)


def chromaticities_of(numbers: Sequence[float]) -> Chromaticities | None:
    """White, red, green and blue of eight numbers; None of another number, or of zeros."""
    if len(numbers) != 8 or not any(numbers):
        return None
    white, red, green, blue = ((numbers[i], numbers[i + 1]) for i in range(0, 8, 2))
    return white, red, green, blue


class Stated(NamedTuple):
    """The space of the pixels of a file.

    Attributes:
        icc: its profile; None for sRGB, or what is taken as it.
        stays: whether a new file is written in this space. A space without colours beyond sRGB,
            and without a profile in the file, becomes sRGB.
    """

    icc: bytes | None = None
    stays: bool = True


SRGB = Stated()


def stated_profile(signals: Signals, space: str, notes: Notes) -> Stated:
    """The profile of the pixels by all that their file says.

    `space` is "RGB" or "GRAY"; `notes` receives guesses, and a profile that is dropped.

    Raises:
        PhotoError: the picture is HDR.
    """
    try:
        if signals.cicp is not None and (signals.cicp_first or not signals.icc):
            return _from_code_points(*signals.cicp, space, notes)
        if signals.icc:
            _refuse_hdr(code_points(signals.icc), notes)
            load_profile(signals.icc, space)
            return Stated(signals.icc)
        stated = signals.gamma is not None or signals.chromaticities is not None
        if stated and not signals.srgb:
            return _made(signals.chromaticities or _BT_709, signals.gamma, space)
    except ProfileError as error:
        notes.warn(f"its colour profile is dropped: {error}")
        return SRGB
    if signals.uncalibrated:
        notes.warn(
            "its EXIF says that its colours are not sRGB, and nothing says what; taken as sRGB"
        )
    return SRGB


def _from_code_points(
    primaries: int, transfer: int, full_range: bool, space: str, notes: Notes
) -> Stated:
    _refuse_hdr((primaries, transfer), notes)
    unknown = []
    if primaries not in _PRIMARIES and primaries != UNSPECIFIED:
        unknown.append(f"colour primaries {primaries}")
    if transfer not in _SRGB_LIKE and transfer not in _GAMMAS and transfer != UNSPECIFIED:
        unknown.append(f"transfer characteristics {transfer}")
    if unknown:
        notes.warn(f"{' and '.join(unknown)} are not known here; taken as those of sRGB")
    places = _PRIMARIES.get(primaries, _BT_709)
    return _made(places, _GAMMAS.get(transfer), space, full_range=full_range)


def _refuse_hdr(points: tuple[int, int] | None, notes: Notes) -> None:
    if points is not None and points[1] in _HDR:
        raise PhotoError(
            f"{notes.name}: is an HDR picture ({_HDR[points[1]]}), and only SDR is read; "
            "save an SDR version of it"
        )


def _made(
    places: Chromaticities, gamma: float | None, space: str, *, full_range: bool = True
) -> Stated:
    """The profile of primaries and a gamma (None for the sRGB curve)."""
    if gamma is not None and not 0.2 <= gamma <= 5:
        raise ProfileError(f"its gamma is {gamma:.3g}")
    icc = make_profile(places, gamma, space, full_range=full_range)
    if load_profile(icc, space) is None:
        return SRGB
    near = np.abs(np.subtract(places, _BT_709)).max() < 0.002
    return Stated(icc, stays=space == "RGB" and not near)
