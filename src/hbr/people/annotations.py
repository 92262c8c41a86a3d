"""The people that somebody has drawn: COCO's boxes, key points and outlines.

RLE is COCO's run-length code: runs of 0 and 1 in turn, down the columns, as numbers or as text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbr.people.types import N_KEYPOINTS, DetectorError, People


def people_from_coco(
    path: str | Path, *, labels: Sequence[str] = ("person",)
) -> Mapping[str, People]:
    """The people of each image of a file in COCO's format, by file name; crowds are left out.

    Images without people are there too. Outlines become masks only when an image is asked for.

    Args:
        path: the JSON file. It is held in memory whole.
        labels: the names of categories that are people.

    Raises:
        DetectorError: the file cannot be read, or is of another form.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_bytes())
        people = {c["id"] for c in data["categories"] if c["name"] in labels}
        images = {image["id"]: image for image in data["images"]}
        entries: dict[str, list[dict[str, Any]]] = {i["file_name"]: [] for i in images.values()}
        for entry in data["annotations"]:
            if entry["category_id"] in people and not entry.get("iscrowd", 0):
                entries[images[entry["image_id"]]["file_name"]].append(entry)
    except OSError as error:
        raise DetectorError(f"{path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        raise DetectorError(f"{path} is no JSON") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise DetectorError(f"{path} is not in COCO's format: {error!r}") from None
    sizes = {i["file_name"]: (i.get("height"), i.get("width")) for i in images.values()}
    return _CocoPeople(path, entries, sizes)


class _CocoPeople(Mapping[str, People]):
    def __init__(
        self,
        path: Path,
        entries: dict[str, list[dict[str, Any]]],
        sizes: dict[str, tuple[Any, Any]],
    ) -> None:
        self._path = path
        self._entries = entries
        self._sizes = sizes

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> People:
        entries = self._entries[name]
        try:
            return _people(entries, self._sizes[name])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DetectorError(f"{self._path}, {name}: {error!r}") from None


def _people(entries: list[dict[str, Any]], size: tuple[Any, Any]) -> People:
    if not entries:
        return People.none()
    boxes = np.array([entry["bbox"] for entry in entries], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    keypoints = masks = None
    if any("keypoints" in entry for entry in entries):
        unknown = [0.0] * 3 * N_KEYPOINTS
        values = [entry.get("keypoints", unknown) for entry in entries]
        keypoints = np.array(values, np.float64).reshape(-1, N_KEYPOINTS, 3)
    if all(entry.get("segmentation") for entry in entries):
        masks = np.stack([mask_from_coco(entry["segmentation"], *size) for entry in entries])
    return People(boxes, np.ones(len(entries)), keypoints, masks)


def mask_from_coco(segmentation: Any, height: int, width: int) -> np.ndarray:
    """The mask of a `segmentation`: a list of outlines, or RLE as numbers or as text.

    Returns:
        bool [height, width].

    Raises:
        ValueError: RLE of another size, or an outline that is none.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), bool)
        for outline in segmentation:
            mask |= fill(np.asarray(outline, np.float64).reshape(-1, 2), height, width)
        return mask
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"RLE of size {segmentation['size']} in an image of {[height, width]}")
    counts = segmentation["counts"]
    return mask_from_runs(
        runs_from_text(counts) if isinstance(counts, str) else counts, height, width
    )


def fill(outline: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centre lies inside an outline (even-odd rule).

    Args:
        outline: [n, 2], x y in pixels; the last point is joined with the first.

    Returns:
        bool [height, width].

    Raises:
        ValueError: a number is not finite, or beyond all sizes of pictures.
    """
    if not (np.abs(outline) < 1e9).all():
        raise ValueError("an outline has a number that is no place in a picture")
    # each edge toggles, in the rows that it crosses, all pixels to the right of it
    toggles = np.zeros((height, width + 1), np.int64)
    centres = np.arange(height) + 0.5
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        rows = np.flatnonzero((y0 <= centres) != (y1 <= centres))
        if rows.size:
            x = x0 + (centres[rows] - y0) * (x1 - x0) / (y1 - y0)
            toggles[rows, np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)] += 1
    return np.cumsum(toggles[:, :width], axis=1) % 2 == 1


def mask_from_runs(runs: Sequence[int], height: int, width: int) -> np.ndarray:
    """The mask of runs of 0 and 1 in turn, down the columns.

    Returns:
        bool [height, width].

    Raises:
        ValueError: the runs are longer or shorter than the mask.
    """
    lengths = np.asarray(runs, np.int64)
    if lengths.sum() != height * width or (lengths < 0).any():
        raise ValueError(f"RLE of {lengths.sum()} pixels; it must be {height * width}")
    values = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(values.reshape(width, height).T)


def runs_from_text(text: str) -> list[int]:
    """The runs of COCO's compressed RLE.

    Each character holds 5 bits of a number and one that says whether more follow, lowest first,
    from code point 48 on; numbers are signed, and from the fourth on the differences to the run two
    before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            if bits & 0x10:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
