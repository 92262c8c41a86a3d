"""How many people detectors find in annotated photos; prints JSON.

A box is right where it shares half of its union with that of a person who no box of a higher score
has found. A face is found where a box of a face holds the nose and both eyes, and is no larger than
eight times the distance between them; only people whose three points are annotated as visible
count, and boxes without any of these are not counted as wrong, because the faces themselves are
not annotated.

The mask of selfie-segmentation above 0.5 is compared with the annotated outline, within the box;
"box" is what the whole box for a mask would be.

"mosaics" are nine photos in a row of three by three, each shrunk into 640x480: people as small as
in the photo of a group, whose number is known.

Usage: python benchmarks/people.py [COCO.json] [IMAGES] [--of nanodet …] [--every 1]
       [--threshold 0.5] [--no-mosaics]
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from machine import machine

from hbr.image import read_photo
from hbr.people.detectors import load_detector
from hbr.people.segmentation import SELFIE, load_person_segmenter, person_mask
from hbr.people.types import Person

COCO = Path("../shared/photos/coco-cc/instances.json")
LOWEST = 0.05
HEIGHTS = {"below 100 px": (0, 100), "100 to 250 px": (100, 250), "above 250 px": (250, 10**6)}
EYES = {"below 12 px": (0, 12), "12 to 30 px": (12, 30), "above 30 px": (30, 10**6)}

Photo = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Pixels, boxes [n, 4] (x0 y0 x1 y1), key points [n, 17, 3]."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("annotations", type=Path, nargs="?", default=COCO)
    parser.add_argument("images", type=Path, nargs="?", default=COCO.parent / "images")
    parser.add_argument("--of", action="append")
    parser.add_argument("--every", type=int, default=1, help="of so many photos, the first")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--no-mosaics", action="store_true")
    args = parser.parse_args()
    photos = list(_photos(args.annotations, args.images, args.every))
    sets = {"photos": photos}
    if not args.no_mosaics:
        sets["mosaics"] = [_mosaic(photos[n - 9 : n]) for n in range(9, len(photos) + 1, 9)]
    results: dict[str, Any] = {}
    masks = _masks(args.annotations, args.every)
    for name in args.of or ["nanodet", "mtcnn", SELFIE]:
        if name == SELFIE:
            results[name] = _outlines(photos, masks)
            continue
        measure = _faces if name == "mtcnn" else _people
        results[name] = {kind: measure(name, found, args.threshold) for kind, found in sets.items()}
    counts = {kind: len(found) for kind, found in sets.items()}
    print(json.dumps({"what": "people", **counts, "results": results, **machine()}, indent=1))


def _photos(annotations: Path, images: Path, every: int) -> Iterator[Photo]:
    data = json.loads(annotations.read_text())
    people = defaultdict(list)
    for one in data["annotations"]:
        people[one["image_id"]].append(one)
    for row in data["images"][::every]:
        boxes = np.array([one["bbox"] for one in people[row["id"]]], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        points = np.array([one["keypoints"] for one in people[row["id"]]], np.float64)
        yield read_photo(images / row["file_name"]).pixels, boxes, points.reshape(len(boxes), 17, 3)


def _masks(annotations: Path, every: int) -> list[np.ndarray]:
    """The outlines of the people in each photo, bool [n, h, w]."""
    data = json.loads(annotations.read_text())
    found = []
    for row in data["images"][::every]:
        people = [one for one in data["annotations"] if one["image_id"] == row["id"]]
        outlines = [[np.reshape(p, (-1, 2)) for p in one["segmentation"]] for one in people]
        size = (row["width"], row["height"])
        persons = [
            Person(size, one["bbox"], outline=tuple(tuple(map(tuple, p)) for p in outline))
            for one, outline in zip(people, outlines, strict=True)
        ]
        found.append(np.stack([person.mask() for person in persons]))
    return found


def _outlines(photos: list[Photo], masks: list[np.ndarray]) -> dict[str, Any]:
    segment = load_person_segmenter(SELFIE)
    shares: dict[str, list[float]] = {"mask": [], "box": []}
    seconds, missed = 0.0, 0
    for (pixels, boxes, _), outlines in zip(photos, masks, strict=True):
        for box, outline in zip(boxes, outlines, strict=True):
            start = time.process_time()
            mask = person_mask(segment, pixels, tuple(box))
            seconds += time.process_time() - start
            missed += mask is None
            left, top = np.floor(box[:2]).astype(int)
            right, bottom = np.ceil(box[2:]).astype(int)
            true = outline[top:bottom, left:right]
            whole = np.ones_like(true)
            for name, one in (("mask", whole if mask is None else mask > 0.5), ("box", whole)):
                shares[name].append(float((one & true).sum() / (one | true).sum()))
    n = len(shares["mask"])
    return {
        **{f"mean overlap of the {name}": float(np.mean(v)) for name, v in shares.items()},
        "better than the box": float(np.mean(np.array(shares["mask"]) > np.array(shares["box"]))),
        "people": n,
        "boxes instead of masks": missed,
        "process seconds a person": seconds / n,
    }


def _mosaic(photos: list[Photo]) -> Photo:
    canvas = np.zeros((3 * 480, 3 * 640, 3), np.uint8)
    all_boxes, all_points = [], []
    for n, (pixels, boxes, points) in enumerate(photos):
        scale = min(480 / pixels.shape[0], 640 / pixels.shape[1])
        small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        y, x = n // 3 * 480, n % 3 * 640
        canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
        all_boxes.append(boxes * scale + [x, y, x, y])
        all_points.append(points * [scale, scale, 1] + [x, y, 0])
    return canvas, np.concatenate(all_boxes), np.concatenate(all_points)


def _people(name: str, photos: list[Photo], threshold: float) -> dict[str, Any]:
    detect = load_detector(name, threshold=LOWEST)
    rows: list[tuple[float, float]] = []  # score, and the height of whom it finds, or 0
    heights: list[float] = []
    overlaps: list[float] = []
    seconds = 0.0
    for pixels, boxes, _ in photos:
        start = time.process_time()
        (found,) = detect([pixels])
        seconds += time.process_time() - start
        heights += list(boxes[:, 3] - boxes[:, 1])
        left = list(range(len(boxes)))
        for box, score in zip(found.boxes, found.scores, strict=True):
            shared = [_iou(box, boxes[i]) for i in left]
            best = int(np.argmax(shared)) if shared else -1
            hit = best >= 0 and shared[best] >= 0.5
            rows.append((score, boxes[left[best], 3] - boxes[left[best], 1] if hit else 0))
            if hit:
                overlaps.append(shared[best])
                left.pop(best)
    rows.sort(reverse=True)
    hits = np.cumsum([height > 0 for _, height in rows])
    precision, recall = hits / np.arange(1, len(rows) + 1), hits / len(heights)
    best_from = np.maximum.accumulate(precision[::-1])[::-1]
    steps = [best_from[recall >= r].max(initial=0) for r in np.linspace(0, 1, 101)]
    n_sure = sum(score > threshold for score, _ in rows)
    sure = [height for score, height in rows if score > threshold and height]
    return {
        "AP50": float(np.mean(steps)),
        f"recall at {threshold}": len(sure) / len(heights),
        f"precision at {threshold}": len(sure) / max(n_sure, 1),
        "mean overlap": float(np.mean(overlaps)),
        "people": len(heights),
        "recall by height": _by_size(sure, heights, HEIGHTS),
        "process seconds a photo": seconds / len(photos),
    }


def _faces(name: str, photos: list[Photo], threshold: float) -> dict[str, Any]:
    detect = load_detector(name, threshold=threshold)
    sizes: list[float] = []
    hits: list[float] = []
    seconds, n_boxes = 0.0, 0
    for pixels, _, points in photos:
        start = time.process_time()
        (found,) = detect([pixels])
        seconds += time.process_time() - start
        n_boxes += len(found)
        for nose_and_eyes in points[:, :3]:
            apart = float(np.linalg.norm(nose_and_eyes[1, :2] - nose_and_eyes[2, :2]))
            if (nose_and_eyes[:, 2] < 2).any() or apart == 0:
                continue
            sizes.append(apart)
            low, high = nose_and_eyes[:, :2].min(axis=0), nose_and_eyes[:, :2].max(axis=0)
            inside = (found.boxes[:, :2] <= low).all(axis=1) & (found.boxes[:, 2:] >= high).all(
                axis=1
            )
            edges = (found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0)
            if (inside & (edges < 8 * apart)).any():
                hits.append(apart)
    return {
        "recall": len(hits) / max(len(sizes), 1),
        "faces": len(sizes),
        "boxes": n_boxes,
        "recall by distance between the eyes": _by_size(hits, sizes, EYES),
        "process seconds a photo": seconds / len(photos),
    }


def _by_size(
    found: list[float], known: list[float], bins: dict[str, tuple[int, int]]
) -> dict[str, str]:
    def count(sizes: list[float], low: int, high: int) -> int:
        return sum(low <= size < high for size in sizes)

    return {
        name: f"{count(found, *edges)} of {count(known, *edges)}" for name, edges in bins.items()
    }


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.prod(np.clip(high - low, 0, None)))
    areas = np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])
    return shared / (float(areas) - shared)


if __name__ == "__main__":
    main()
