"""Data sets of one person in each photo: SHHQ, DeepFashion (In-shop, Fashion) and Market-1501.

shhq        `no_segment/NAME.png`, beside `segments`; key points in one text file, if there is one
inshop      `Eval/list_eval_partition.txt` names the photos in `Img/img_highres` or `Img/img`;
            the boxes and landmarks of `Anno` are of clothes, so people come from a detector
fashion     `train/` and `test/`, named by `train.lst` and `test.lst`, with the 18 key points of
            OpenPose in `fasion-resize-annotation-{train,test}.csv` (spelled so): the form in
            which methods of pose transfer use In-shop
market1501  `query`, `bounding_box_test`, `bounding_box_train`; names are `0002_c1s1_000451_03.jpg`:
            identity, camera and sequence, frame, detection; -1 is junk, 0000 a distractor

None of them may be passed on, and Market-1501 is for tests only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from hbr.curation.sources.base import Box, ImageRef, SourceError, SourceImage
from hbr.curation.sources.configs import DeepFashionConfig, Market1501Config, ShhqConfig
from hbr.curation.sources.paths import badly_named, unused, walk
from hbr.people.skeleton import OPENPOSE_18
from hbr.people.types import N_KEYPOINTS
from hbr.people.values import name_parts, number, open_text

SinglePersonConfig = ShhqConfig | DeepFashionConfig | Market1501Config

LICENCES: Mapping[str, str] = {
    "shhq": "SHHQ release agreement: non-commercial research, no redistribution",
    "deepfashion": "DeepFashion agreement: non-commercial research, no redistribution",
    "market1501": "Market-1501: research only, no redistribution",
}

# which of OpenPose's points each of COCO's 17 is, in its two layouts; (0, 0) and below are missing
_FROM_BODY_25 = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)
_FROM_OPENPOSE_18 = tuple(map(OPENPOSE_18.index, range(N_KEYPOINTS)))

_SHHQ_PHOTOS = ("no_segment", "raw_images", "raw")
_PARTITION = Path("Eval/list_eval_partition.txt")
_MARKET = {"train": "bounding_box_train", "query": "query", "test": "bounding_box_test"}
_MARKET_NAME = re.compile(r"(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}\.jpg(?:\.jpg)?", re.ASCII)


def read_single_person(name: str, config: SinglePersonConfig) -> Iterator[SourceImage]:
    """The photos of one of these data sets in the order of their lists, or of their names."""
    match config:
        case ShhqConfig():
            yield from _shhq(name, config)
        case DeepFashionConfig(layout="inshop"):
            yield from _inshop(name, config)
        case DeepFashionConfig():
            yield from _fashion(name, config)
        case Market1501Config():
            yield from _market(name, config)


def guess(folder: Path) -> SinglePersonConfig | None:
    """Which of these data sets is in a folder, by its files; None if it is none of them."""
    if (folder / "no_segment").is_dir():
        return ShhqConfig(path=folder)
    if (folder / _PARTITION).is_file():
        return DeepFashionConfig(path=folder)
    if (folder / "train.lst").is_file() and (folder / "train").is_dir():
        return DeepFashionConfig(path=folder, layout="fashion")
    if (folder / _MARKET["test"]).is_dir() and (folder / _MARKET["query"]).is_dir():
        return Market1501Config(path=folder)
    return None


def _whole(label: str, points: tuple[float, ...] | None = None, *, ignore: bool = False) -> Box:
    """A box around the whole photo, which is a crop of one person."""
    return Box(0, 0, 1, 1, label=label, normalised=True, keypoints=points, ignore=ignore)


def _shhq(name: str, config: ShhqConfig) -> Iterator[SourceImage]:
    places = (config.path / part for part in _SHHQ_PHOTOS)
    folder = next((place for place in places if place.is_dir()), None)
    if folder is None:
        names = ", ".join(_SHHQ_PHOTOS)
        raise SourceError(f"{config.path}: no folder of SHHQ's photos in it ({names})")
    points: dict[str, tuple[float, ...]] = {}
    if config.keypoints is not None:
        with open_text(config.keypoints) as file:
            for i, line in enumerate(file, 1):
                photo, *words = line.split() or [""]
                if not photo:
                    continue
                found = _keypoints(words[::2], words[1::2], _FROM_BODY_25, 25)
                if found is None:
                    place = f"{config.keypoints.name}:line {i}"
                    yield unused(name, place, f"{place}: a name and 25 points were expected")
                elif found:
                    points[Path(photo).stem] = found
    for photo in walk(folder):
        box = _whole("person", points.get(Path(photo).stem))
        yield _photo(name, folder, photo, LICENCES["shhq"], (box,))


def _inshop(name: str, config: DeepFashionConfig) -> Iterator[SourceImage]:
    root = config.path
    folders = (root / "Img" / part for part in ("img_highres", "img"))
    folder = next((place for place in folders if place.is_dir()), None)
    if folder is None:
        raise SourceError(f"{root}: neither Img/img_highres nor Img/img is there")
    boxes, flat = root / "Anno/list_bbox_inshop.txt", set()
    if boxes.is_file():
        for _, row in _listed(boxes, ("image_name", "clothes_type", "pose_type"), 7):
            if row and row[2] == "6":  # clothes without a person
                flat.add(row[0])
    for i, row in _listed(root / _PARTITION, ("image_name", "item_id", "evaluation_status"), 3):
        place = f"{_PARTITION.name}:line {i}"
        if not row or row[2] not in ("train", "query", "gallery"):
            expected = "a photo, an item, and train, query or gallery"
            yield unused(name, place, f"{place}: {expected} were expected")
            continue
        if config.subset == "all" or (row[2] == "train") == (config.subset == "train"):
            photo = row[0].removeprefix("img/")
            nobody = row[0] in flat or Path(photo).stem.endswith("_flat")
            found = () if nobody else None
            yield _photo(name, folder, photo, LICENCES["deepfashion"], found)


def _fashion(name: str, config: DeepFashionConfig) -> Iterator[SourceImage]:
    for part in ("train", "test") if config.subset == "all" else (config.subset,):
        points: dict[str, tuple[float, ...]] = {}
        for form in ("fasion-resize-annotation", "fasion-annotation"):
            table = config.path / f"{form}-{part}.csv"
            if table.is_file():
                for i, photo, found in _fashion_points(table):
                    if found is None:
                        place = f"{table.name}:line {i}"
                        expected = "NAME: [18 y]: [18 x] was expected"
                        yield unused(name, place, f"{place}: {expected}")
                    elif found:
                        points[photo] = found
                break
        with open_text(config.path / f"{part}.lst") as file:
            photos = [line.strip() for line in file if line.strip()]
        for photo in photos:
            box = _whole("person", points.get(photo))
            size = config.keypoints_size if photo in points else (None, None)
            key = f"{part}/{photo}"
            yield _photo(name, config.path, key, LICENCES["deepfashion"], (box,), size)


def _fashion_points(table: Path) -> Iterator[tuple[int, str, tuple[float, ...] | None]]:
    """Line, photo and key points of each row of `name:keypoints_y:keypoints_x`."""
    with open_text(table) as file:
        for i, line in enumerate(file, 1):
            photo, *lists = (part.strip() for part in line.split(":"))
            if photo in ("", "name"):
                continue
            try:
                y, x = (list(json.loads(values)) for values in lists)
            except (ValueError, TypeError):
                yield i, photo, None
            else:
                yield i, photo, _keypoints(x, y, _FROM_OPENPOSE_18, 18)


def _market(name: str, config: Market1501Config) -> Iterator[SourceImage]:
    for part in config.parts:
        folder = _MARKET[part]
        for photo in walk(config.path / folder):
            key = f"{folder}/{photo}"
            parts = _MARKET_NAME.fullmatch(photo)
            if parts is None:
                said = f"{key}: a name such as 0002_c1s1_000451_03.jpg was expected"
                yield unused(name, key, said)
                continue
            identity, camera = parts.groups()
            junk = identity in ("-1", "0000")
            box = _whole(f"person {identity}, camera {camera}", ignore=junk)
            yield _photo(name, config.path, key, LICENCES["market1501"], (box,))


def _photo(
    source: str,
    folder: Path,
    name: str,
    licence: str,
    boxes: tuple[Box, ...] | None,
    size: tuple[int | None, int | None] = (None, None),
) -> SourceImage:
    if bad := badly_named(source, name):
        return bad
    parts = name_parts(name)
    if not parts or ".." in parts or "\0" in name:
        return unused(source, name, f"{name!r} is no file name within the folder of photos")
    return SourceImage(
        source=source,
        key=name,
        ref=ImageRef.file(folder.joinpath(*parts)),
        width=size[0],
        height=size[1],
        boxes=boxes,
        licence=licence,
    )


def _listed(path: Path, heads: Sequence[str], n: int) -> Iterator[tuple[int, list[str] | None]]:
    """Line and columns of DeepFashion's lists; None for a line without `n` columns.

    Raises:
        SourceError: the first lines are not the count and the names of the columns.
    """
    with open_text(path) as file:
        count, names = file.readline().strip(), file.readline().split()
        if not count.isdecimal() or names[: len(heads)] != [*heads]:
            raise SourceError(
                f"{path}: its first lines must be a count and {' '.join(heads)}, as DeepFashion's"
            )
        rows = 0
        for i, line in enumerate(file, 3):
            if line.strip():
                rows += 1
                row = line.split()
                yield i, row if len(row) == n else None
    if rows < int(count):
        yield rows + 3, None  # the list was cut


def _keypoints(
    x: Sequence[object], y: Sequence[object], order: Sequence[int], n: int
) -> tuple[float, ...] | None:
    """COCO's 17 key points, 51 numbers, of `n` points of OpenPose.

    Returns:
        none of them where all points are missing; None if `n` points were not given.
    """
    if len(x) != n or len(y) != n:
        return None
    found = []
    for i in order:
        u, v = number(x[i]), number(y[i])
        there = math.isfinite(u) and math.isfinite(v) and min(u, v) >= 0 and (u, v) != (0, 0)
        found += [u, v, 2.0] if there else [0.0, 0.0, 0.0]
    return tuple(found) if any(found) else ()
