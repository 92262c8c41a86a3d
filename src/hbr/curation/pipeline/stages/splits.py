"""Stage i: splits that share no image and no near-duplicates.

Crops of one image, and crops that look nearly the same, form a group. A hash of the group alone
decides its split, whatever else is in the set.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from hbr.curation.config import SplitsConfig

_LINKS = 1 << 22  # links held before they are merged


def components(n: int, links: Iterable[np.ndarray]) -> np.ndarray:
    """Find the connected components of a graph.

    Args:
        n: number of nodes.
        links: [p, 2] pairs of node indices, in blocks; pairs may repeat.

    Returns:
        [n] int64: the lowest index in each node's component.
    """
    lowest = np.arange(n)
    held: list[np.ndarray] = []
    for block in links:
        held.append(block)
        if sum(map(len, held)) > _LINKS:
            lowest, held = _joined(lowest, held), []
    return _joined(lowest, held)


def _joined(lowest: np.ndarray, links: Sequence[np.ndarray]) -> np.ndarray:
    """Merge more links into the components."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(lowest)
    a, b = lowest[np.concatenate([np.empty((0, 2), np.int64), *links])].T
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    _, first, label = np.unique(label[lowest], return_index=True, return_inverse=True)
    return first[label]


def share_group(images: np.ndarray, hashes: np.ndarray, near: Iterable[np.ndarray]) -> np.ndarray:
    """Assign each crop to a group.

    Args:
        images: [n] uint64, hash of the file that each crop comes from.
        hashes: [n] uint64, perceptual hash of each crop.
        near: [p, 2] uint64, pairs of near hashes, in blocks; equal hashes need not be listed.

    Returns:
        [n] uint64: the lowest value of `images` in each crop's group.
    """
    named, image = np.unique(images, return_inverse=True)
    known, looks = np.unique(hashes, return_inverse=True)
    k = len(named)
    # one graph of images and hashes: a crop links its image and its hash, nearness two hashes
    links = np.stack([image.ravel(), k + looks.ravel()], axis=1)
    alike = (k + np.searchsorted(known, pairs) for pairs in near)
    lowest = components(k + len(known), itertools.chain([links], alike))[image.ravel()]
    return named[lowest]  # images come first and are sorted: the lowest index is the lowest image


def split_of(group: int, config: SplitsConfig) -> str:
    """Return the split of a group without a fixed source: the share that its hash falls into."""
    digest = hashlib.sha256(f"{config.seed}:{group:016x}".encode()).digest()
    point = int.from_bytes(digest[:6], "big") / (1 << 48)
    until = 0.0
    for name, share in config.parts.items():
        until += share
        if point < until:
            return name
    return next(reversed([name for name, share in config.parts.items() if share > 0]))


def sample(ids: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw `count` of [n] uint64 ids, each by its own hash; returns [n] bool."""
    drawn = [
        hashlib.sha256(f"{seed}:sample:{crop:016x}".encode()).digest() for crop in ids.tolist()
    ]
    chosen = np.zeros(len(ids), bool)
    chosen[sorted(range(len(ids)), key=drawn.__getitem__)[:count]] = True
    return chosen


def assign(
    groups: np.ndarray, sources: np.ndarray, names: Sequence[str], config: SplitsConfig
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Assign each crop to a split.

    Args:
        groups: [n] uint64, group of each crop.
        sources: [n] index into `names`, source of each crop.
        names: names of the sources.
        config: shares of the splits, and sources with a fixed split.

    Returns:
        [n] int64, index of each crop's split; and the names of the splits.
    """
    splits = tuple(dict.fromkeys([*config.parts, *config.fixed.values()]))
    fixed = [splits.index(config.fixed[name]) if name in config.fixed else -1 for name in names]
    different, group = np.unique(groups, return_inverse=True)
    chosen = np.full(len(different), -1)
    np.maximum.at(chosen, group.ravel(), np.array(fixed, np.int64)[sources])
    for i in np.flatnonzero(chosen < 0).tolist():
        chosen[i] = splits.index(split_of(int(different[i]), config))
    return chosen[group.ravel()], splits
