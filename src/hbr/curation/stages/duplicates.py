"""Stage h: crops that look nearly the same, by their perceptual hashes."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

BITS = 64
_BAND = 16
_BANDS = BITS // _BAND
_BLOCK = 1 << 22  # pairs looked at in one go: 100 MB or so

_ONES = np.array([value.bit_count() for value in range(1 << _BAND)], np.uint8)


def phash(crop: np.ndarray) -> int:
    """64 bits that change little when a picture is resized, recompressed or brightened.

    The signs, against their median, of the 8x8 lowest coefficients of the DCT of the picture at
    32x32 grey levels.

    Args:
        crop: [h, w, 3] uint8.

    Source: C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[:8, :8]
    bits = (low > np.median(low)).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """In how many bits [n] uint64 hashes differ from [n] others."""
    halves = np.ascontiguousarray(a ^ b).view(np.uint16).reshape(-1, _BANDS)
    return _ONES[halves].sum(axis=1, dtype=np.uint8)


def near_pairs(hashes: np.ndarray, radius: int) -> np.ndarray:
    """All pairs of hashes that differ in at most `radius` bits.

    Two such hashes differ in at most `radius // 4` bits in one of their four 16-bit bands; only
    hashes that meet there are compared (multi-index hashing).

    Args:
        hashes: [n] uint64, all different.
        radius: 0 to 15; -1 finds none.

    Returns:
        [p, 2] int64, i < j, sorted.

    Source: M. Norouzi et al., "Fast search in Hamming space with multi-index hashing", CVPR 2012.
    """
    n = len(hashes)
    if radius < 1 or n < 2:
        return np.empty((0, 2), np.int64)
    found = []
    bands = np.ascontiguousarray(hashes).view(np.uint16).reshape(n, _BANDS)
    for band, flips in itertools.product(range(_BANDS), _flips(radius // _BANDS)):
        values = bands[:, band]
        order = np.argsort(values, kind="stable")
        starts = np.searchsorted(values[order], np.arange((1 << _BAND) + 1))
        wanted = (values ^ np.uint16(flips)).astype(np.int64)
        counts = starts[wanted + 1] - starts[wanted]
        for i in _blocks(counts):
            repeated = np.repeat(i, counts[i])
            within = np.arange(len(repeated)) - np.repeat(
                np.cumsum(counts[i]) - counts[i], counts[i]
            )
            j = order[np.repeat(starts[wanted[i]], counts[i]) + within]
            repeated, j = repeated[repeated < j], j[repeated < j]
            near = distance(hashes[repeated], hashes[j]) <= radius
            found.append(repeated[near] * n + j[near])
    codes = np.unique(np.concatenate(found))
    return np.stack([codes // n, codes % n], axis=1)


def _flips(most: int) -> list[int]:
    """All 16-bit numbers with up to `most` ones."""
    return [
        sum(1 << bit for bit in bits)
        for k in range(most + 1)
        for bits in itertools.combinations(range(_BAND), k)
    ]


def _blocks(counts: np.ndarray) -> list[np.ndarray]:
    """Indices in runs whose counts add up to one block, or one index above it."""
    index = np.flatnonzero(counts)
    block = np.cumsum(counts[index]) // _BLOCK
    return np.split(index, np.flatnonzero(np.diff(block)) + 1) if len(index) else []


def duplicate_of(hashes: np.ndarray, rank: np.ndarray, radius: int) -> np.ndarray:
    """For each crop the better one that it nearly repeats.

    From the best to the worst, a crop stays unless one that stays is near; so any two that stay
    are further apart than `radius`.

    Args:
        hashes: [n] uint64.
        rank: [n], all different; lower is better.
        radius: bits; -1 looks for no duplicates, 0 for equal hashes.

    Returns:
        [n] int64: the index of the best crop that stays and is near, -1 for crops that stay.
    """
    n = len(hashes)
    lost_to = np.full(n, -1, np.int64)
    if radius < 0 or n < 2:
        return lost_to
    by_rank = np.argsort(rank, kind="stable")
    different, first, inverse = np.unique(
        hashes[by_rank], return_index=True, return_inverse=True
    )  # `first`: the best of each hash
    neighbours: dict[int, list[int]] = {}
    for a, b in near_pairs(different, radius).tolist():
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    winner = np.full(len(different), -1, np.int64)  # of each hash: position by rank
    for h in np.argsort(first, kind="stable").tolist():
        kept = [first[k] for k in neighbours.get(h, ()) if winner[k] == first[k]]
        winner[h] = min([int(p) for p in kept if p < first[h]], default=int(first[h]))
    won = winner[inverse.ravel()]
    loses = won != np.arange(n)
    lost_to[by_rank[loses]] = by_rank[won[loses]]
    return lost_to
