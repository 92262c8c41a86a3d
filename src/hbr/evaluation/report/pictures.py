"""Which pictures go into the page, and the pictures themselves, within a budget of bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from hbr.evaluation.results import BenchmarkRun, PictureRow
from hbr.image import PhotoError, read_photo
from hbr.pages import data_uri

EXTREMES = 4
"""How many of the best and of the worst of each metric come before all others."""

PictureKey = tuple[str, str]
"""(data set, stem)."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One photo in all its forms, as `data:` addresses; None where there is none.

    Attributes:
        width, height: of the largest form, in pixels, as it is in its file.
        lq, hq: degraded, undamaged.
        restored: method → picture.
    """

    width: int
    height: int
    lq: str | None
    hq: str | None
    restored: dict[str, str]


def scenes(run: BenchmarkRun, *, edge: int, budget: int) -> dict[PictureKey, Scene]:
    """Pictures by (data set, stem), those that matter most first, until `budget` bytes are full.

    A picture that cannot be read is left out. All methods of a photo come in together, so that
    they can be compared.
    """
    rows: dict[PictureKey, list[PictureRow]] = {}
    for row in run.rows:
        rows.setdefault((row.data_set, row.stem), []).append(row)
    found: dict[PictureKey, Scene] = {}
    spent = 0
    for key in by_importance(run):
        scene = _scene(run, rows[key], edge)
        if scene is None:
            continue
        uris = (scene.lq, scene.hq, *scene.restored.values())
        spent += sum(len(uri) for uri in uris if uri)
        if spent > budget:
            break
        found[key] = scene
    return found


def by_importance(run: BenchmarkRun) -> list[PictureKey]:
    """Every (data set, stem): the best and the worst of each metric and method, then the others.

    The others are spread evenly, whatever number of them is taken.
    """
    ranked: list[list[PictureRow]] = []
    cells: dict[tuple[str, str], list[PictureRow]] = {}
    for row in run.rows:
        cells.setdefault((row.data_set, row.method), []).append(row)
    for of_method, info in itertools.product(cells.values(), run.metrics):
        values = [row for row in of_method if info.id in row.values]
        best_last = sorted(values, key=lambda row: (row.values[info.id], row.stem))
        ranked += [best_last[-EXTREMES:][::-1], best_last[:EXTREMES]]
    keys: dict[PictureKey, None] = {}
    for rank in range(EXTREMES):
        for extremes in ranked:
            if rank < len(extremes):
                keys[extremes[rank].data_set, extremes[rank].stem] = None
    others = dict.fromkeys((row.data_set, row.stem) for row in run.rows)
    spread = list(others)
    for index in _evenly(len(spread)):
        keys[spread[index]] = None
    return list(keys)


def _evenly(n: int) -> Iterator[int]:
    """0 to n − 1 so that every beginning is spread out: the bits of a counter in reverse order."""
    bits = max(1, (n - 1).bit_length())
    for count in range(1 << bits):
        index = int(f"{count:0{bits}b}"[::-1], 2)
        if index < n:
            yield index


def _scene(run: BenchmarkRun, rows: list[PictureRow], edge: int) -> Scene | None:
    width = height = 0

    def load(file: str | None) -> str | None:
        nonlocal width, height
        if file is None:
            return None
        try:
            photo = read_photo(run.path(file))
        except PhotoError:
            return None
        picture = photo.displayed().pil()
        if picture.width * picture.height > width * height:
            width, height = picture.size
        return data_uri(picture, edge=edge)

    lq = load(next((row.lq for row in rows if row.lq), None))
    hq = load(next((row.reference for row in rows if row.reference), None))
    restored = {row.method: uri for row in rows if (uri := load(row.restored)) is not None}
    if not restored and lq is None and hq is None:
        return None
    return Scene(width=width, height=height, lq=lq, hq=hq, restored=restored)
