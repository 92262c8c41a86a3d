"""Stage h: crops that look nearly the same, by their perceptual hashes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import cv2
import numpy as np

BITS = 64
_BAND = 16
_BANDS = BITS // _BAND
_BLOCK = 1 << 20  # pairs looked at in one go: 50 MB or so
_FEW = 2048  # hashes that may all be near each other
_ONES = np.array([value.bit_count() for value in range(1 << _BAND)], np.uint8)
_NONE = np.empty((0, 2), np.int64)


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
    bits = _ONES[halves[:, 0]]
    for band in range(1, _BANDS):
        bits += _ONES[halves[:, band]]
    return bits


def meetings(a: np.ndarray, b: np.ndarray, radius: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of a hash of one set and a hash of another that differ in at most `radius` bits.

    Two such hashes differ in at most `radius // 4` bits in one of their four 16-bit bands; only
    hashes that meet there are compared (multi-index hashing).

    Args:
        a: [n] uint64.
        b: [m] uint64.
        radius: 0 to 15.

    Yields:
        [p] indices into `a`, [p] indices into `b`, block by block; a pair may come up to four
        times, once for each band it meets in.

    Source: M. Norouzi et al., "Fast search in Hamming space with multi-index hashing", CVPR 2012.
    """
    ours, theirs = (np.ascontiguousarray(x).view(np.uint16).reshape(-1, _BANDS) for x in (a, b))
    for band in range(_BANDS):
        order = np.argsort(theirs[:, band], kind="stable")
        starts = np.searchsorted(theirs[order, band], np.arange((1 << _BAND) + 1))
        for flips in _flips(radius // _BANDS):
            wanted = (ours[:, band] ^ np.uint16(flips)).astype(np.int64)
            counts = starts[wanted + 1] - starts[wanted]
            for part in _blocks(counts):
                i = np.repeat(part, counts[part])
                first = starts[wanted[part]] - (np.cumsum(counts[part]) - counts[part])
                j = order[np.repeat(first, counts[part]) + np.arange(len(i))]
                near = distance(a[i], b[j]) <= radius
                yield i[near], j[near]


def near_blocks(hashes: np.ndarray, radius: int) -> Iterator[np.ndarray]:
    """All pairs of hashes that differ in at most `radius` bits, in blocks; some come repeatedly.

    Args:
        hashes: [n] uint64, all different.
        radius: 0 to 15; -1 finds none.

    Yields:
        [p, 2] int64, i < j.
    """
    if radius < 1 or len(hashes) < 2:
        return
    for i, j in meetings(hashes, hashes, radius):
        once = i < j
        yield np.stack([i[once], j[once]], axis=1)


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
    """For each crop, the better one that it nearly duplicates.

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
    _, first, inverse = np.unique(
        hashes[by_rank], return_index=True, return_inverse=True
    )  # `first`: the best of each hash
    ranked = np.sort(first)
    winner = np.arange(n)  # by rank
    winner[ranked] = ranked[_winners(hashes[by_rank[ranked]], radius)]
    won = winner[first[inverse.ravel()]]
    loses = won != np.arange(n)
    lost_to[by_rank[loses]] = by_rank[won[loses]]
    return lost_to


def _winners(hashes: np.ndarray, radius: int) -> np.ndarray:
    """[n] the first hash that stays and is near each, which may be itself; the best come first.

    The worse half is compared with what stays of the better half, so that even thousands that are
    all alike never meet each other in memory.
    """
    n = len(hashes)
    winner = np.arange(n)
    if radius < 1 or n < 2:
        return winner
    if n <= _FEW:
        pairs = np.unique(np.concatenate(list(near_blocks(hashes, radius)) or [_NONE]), axis=0)
        for i, j in pairs.tolist():  # by i, so that whether i stays is known when it comes
            if winner[i] == i and winner[j] == j:
                winner[j] = i
        return winner
    half = n // 2
    winner[:half] = _winners(hashes[:half], radius)
    stay = np.flatnonzero(winner[:half] == np.arange(half))
    found = np.full(n - half, n)
    for i, j in meetings(hashes[half:], hashes[stay], radius):
        np.minimum.at(found, i, stay[j])
    lost = found < n
    winner[half:][lost] = found[lost]
    left = half + np.flatnonzero(~lost)
    winner[left] = left[_winners(hashes[left], radius)]
    return winner
