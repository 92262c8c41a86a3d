"""Perceptual colour difference: CIELAB and CIEDE2000."""

import numpy as np

# sRGB (IEC 61966-2-1) to XYZ, and the white of D65 in it
_XYZ = np.array(
    [
        (0.412453, 0.357580, 0.180423),
        (0.212671, 0.715160, 0.072169),
        (0.019334, 0.119193, 0.950227),
    ]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(rgb: np.ndarray) -> np.ndarray:
    """SRGB [..., 3] in [0, 1] → CIELAB [..., 3] under D65."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _XYZ.T / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def ciede2000(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """ΔE₀₀ of CIELAB colours, k_L = k_C = k_H = 1: two [..., 3] → [...].

    CIE 142-2001, as written out by Sharma, Wu and Dalal 2005, Eq. 2 to 22.
    """
    (l1, a1, b1), (l2, a2, b2) = np.moveaxis(one, -1, 0), np.moveaxis(other, -1, 0)
    chroma = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 0.5 * (1 - _share_of_25(chroma))
    c1, c2 = np.hypot((1 + g) * a1, b1), np.hypot((1 + g) * a2, b2)
    h1 = np.arctan2(b1, (1 + g) * a1) % (2 * np.pi)
    h2 = np.arctan2(b2, (1 + g) * a2) % (2 * np.pi)

    # hues are angles; greys have none
    grey = c1 * c2 == 0
    turn = h2 - h1
    turn = np.where(turn > np.pi, turn - 2 * np.pi, np.where(turn < -np.pi, turn + 2 * np.pi, turn))
    turn = np.where(grey, 0, turn)
    lightness, chroma, hue = l2 - l1, c2 - c1, 2 * np.sqrt(c1 * c2) * np.sin(turn / 2)

    mean_l, mean_c = (l1 + l2) / 2, (c1 + c2) / 2
    mean_h = (h1 + h2) / 2
    apart = np.abs(h1 - h2) > np.pi
    mean_h = np.where(apart, np.where(h1 + h2 < 2 * np.pi, mean_h + np.pi, mean_h - np.pi), mean_h)
    mean_h = np.where(grey, h1 + h2, mean_h)
    t = (
        1
        - 0.17 * np.cos(mean_h - np.radians(30))
        + 0.24 * np.cos(2 * mean_h)
        + 0.32 * np.cos(3 * mean_h + np.radians(6))
        - 0.20 * np.cos(4 * mean_h - np.radians(63))
    )
    s_l = 1 + 0.015 * (mean_l - 50) ** 2 / np.sqrt(20 + (mean_l - 50) ** 2)
    s_c, s_h = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * t
    bend = np.radians(30) * np.exp(-(((np.degrees(mean_h) - 275) / 25) ** 2))
    r_t = -2 * _share_of_25(mean_c) * np.sin(2 * bend)
    parts = (lightness / s_l) ** 2 + (chroma / s_c) ** 2 + (hue / s_h) ** 2
    return np.sqrt(np.maximum(parts + r_t * (chroma / s_c) * (hue / s_h), 0))


def _share_of_25(chroma: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(chroma**7 / (chroma**7 + 25.0**7)))
