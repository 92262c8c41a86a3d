"""Stage i: splits that share no image and no near-duplicates.

What belongs together goes together: crops of one image, and crops that nearly look the same, form a
group, and a hash of the group decides. It depends on nothing else in the set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from hbr.curation.config import SplitsConfig


def components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Which of n things hang together through pairs.

    Args:
        n: how many things.
        pairs: [p, 2] indices.

    Returns:
        [n] int64: the lowest index of each one's component.
    """
    parent = list(range(n))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs.tolist():
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(n)], np.int64)


def share_group(images: np.ndarray, hashes: np.ndarray, near: np.ndarray) -> np.ndarray:
    """The group of each crop.

    Args:
        images: [n] uint64, the image that each crop is from, by its content.
        hashes: [n] uint64, each one's perceptual hash.
        near: [p, 2] uint64, pairs of hashes that are near; equal ones need not be named.

    Returns:
        [n] uint64: the lowest image of each one's group.
    """
    named, image = np.unique(images, return_inverse=True)
    known, looks = np.unique(hashes, return_inverse=True)
    k = len(named)
    # one graph of images and hashes: a crop links its two, nearness links hashes
    links = np.stack([image.ravel(), k + looks.ravel()], axis=1)
    if len(near):
        links = np.concatenate([links, k + np.searchsorted(known, near)])
    lowest = components(k + len(known), links)[image.ravel()]
    return named[lowest]  # sorted, and images come first: the lowest index is the lowest image


def split_of(group: int, config: SplitsConfig) -> str:
    """The split of a group that no source fixes: its hash falls into one of the shares."""
    digest = hashlib.sha256(f"{config.seed}:{group:016x}".encode()).digest()
    point = int.from_bytes(digest[:6], "big") / (1 << 48)
    until = 0.0
    for name, share in config.parts.items():
        until += share
        if point < until:
            return name
    return next(reversed([name for name, share in config.parts.items() if share > 0]))


def assign(groups: Mapping[int, Collection[str]], config: SplitsConfig) -> dict[int, str]:
    """The split of each group.

    Args:
        groups: group → the sources of its crops.
        config: shares, and sources that are fixed.
    """
    order = list(dict.fromkeys([*config.parts, *config.fixed.values()]))

    def choose(group: int, sources: Iterable[str]) -> str:
        fixed = {config.fixed[s] for s in sources if s in config.fixed}
        return max(fixed, key=order.index) if fixed else split_of(group, config)

    return {group: choose(group, sources) for group, sources in groups.items()}
