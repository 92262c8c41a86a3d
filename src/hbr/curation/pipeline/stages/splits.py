"""Stage i: splits that share no image and no near-duplicates.

What belongs together goes together: crops of one image, and crops that nearly look the same, form a
group, and a hash of the group decides. It depends on nothing else in the set.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from hbr.curation.config import SplitsConfig

_LINKS = 1 << 22  # that are held before they are joined


def components(n: int, links: Iterable[np.ndarray]) -> np.ndarray:
    """Connected components of n things under links.

    Args:
        n: how many things.
        links: [p, 2] indices, in blocks; some may come repeatedly.

    Returns:
        [n] int64: the lowest index of each one's component.
    """
    lowest = np.arange(n)
    held: list[np.ndarray] = []
    for block in links:
        held.append(block)
        if sum(map(len, held)) > _LINKS:
            lowest, held = _joined(lowest, held), []
    return _joined(lowest, held)


def _joined(lowest: np.ndarray, links: Sequence[np.ndarray]) -> np.ndarray:
    """The components after more links."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(lowest)
    a, b = lowest[np.concatenate([np.empty((0, 2), np.int64), *links])].T
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, first, label = np.unique(label[lowest], return_index=True, return_inverse=True)
    return first[label]


def share_group(images: np.ndarray, hashes: np.ndarray, near: Iterable[np.ndarray]) -> np.ndarray:
    """The group of each crop.

    Args:
        images: [n] uint64, the image that each crop is from, by its content.
        hashes: [n] uint64, each one's perceptual hash.
        near: [p, 2] uint64, pairs of hashes that are near, in blocks; equal ones need not be named.

    Returns:
        [n] uint64: the lowest image of each one's group.
    """
    named, image = np.unique(images, return_inverse=True)
    known, looks = np.unique(hashes, return_inverse=True)
    k = len(named)
    # one graph of images and hashes: a crop links its two, nearness links hashes
    links = np.stack([image.ravel(), k + looks.ravel()], axis=1)
    alike = (k + np.searchsorted(known, pairs) for pairs in near)
    lowest = components(k + len(known), itertools.chain([links], alike))[image.ravel()]
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


def sample(ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """[n] bool: `count` of [n] uint64 ids, drawn by the hash of each alone."""
    drawn = [
        hashlib.sha256(f"{seed}:sample:{crop:016x}".encode()).digest() for crop in ids.tolist()
    ]
    chosen = np.zeros(len(ids), bool)
    chosen[sorted(range(len(ids)), key=drawn.__getitem__)[:count]] = True
    return chosen


def assign(
    groups: np.ndarray, sources: np.ndarray, names: Sequence[str], config: SplitsConfig
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The split of each crop.

    Args:
        groups: [n] uint64, the group of each crop.
        sources: [n] index into `names`, the source of each.
        names: of the sources.
        config: shares, and sources that are fixed.

    Returns:
        [n] int64, indices of splits; and the names of these.
    """
    splits = tuple(dict.fromkeys([*config.parts, *config.fixed.values()]))
    fixed = [splits.index(config.fixed[name]) if name in config.fixed else -1 for name in names]
    different, group = np.unique(groups, return_inverse=True)
    chosen = np.full(len(different), -1)
    np.maximum.at(chosen, group.ravel(), np.array(fixed, np.int64)[sources])
    for i in np.flatnonzero(chosen < 0).tolist():
        chosen[i] = splits.index(split_of(int(different[i]), config))
    return chosen[group.ravel()], splits
