"""What restoring people for themselves costs, and what it gains; prints JSON.

Quality: photos with people by a COCO file, damaged by a recipe of hbr with a generator seeded with
(0, name), restored as `--people off`, `auto` and `only` do it, and with everyone enlarged to the
native size as for a model with `person_crops`. LPIPS (AlexNet) inside the boxes; for `only`, how
strong gradients are where the mask falls, over those of the two pictures there, each counting as
much as it is seen. People of less than 64 pixels in a direction are left out, as LPIPS needs them.

Cost: a photo of 12 megapixels, four of these photos enlarged and put together, with the box of one
person in each. Seconds of the model, and of everything else but finding people.

Usage: HBR_WEIGHTS=… python benchmarks/restore_people.py [PHOTOS] [--people instances.json]
       [--model nano] [--recipe real-esrgan] [--count 20] [--no-cost] [--pictures DIR]
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from machine import machine
from PIL import Image

from hbr import Restorer
from hbr.degradation.folder import draw_for
from hbr.degradation.named_recipes import find_recipe
from hbr.degradation.pipeline import degrade
from hbr.image import Photo, read_photo, write_photo
from hbr.metrics import Metric, load_metric
from hbr.people.coco import read_people
from hbr.restoration.people.pasting import around, box_mask
from hbr.restoration.settings import PeopleChoice

PHOTOS = Path("../shared/photos/coco-cc/images")
PEOPLE = Path("../shared/photos/coco-cc/instances.json")
LEAST = 64
# of the photo of 12 megapixels
HEIGHT, WIDTH = 3000, 4000

Box = tuple[float, float, float, float]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOS)
    parser.add_argument("--people", type=Path, default=PEOPLE)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--recipe", default="real-esrgan")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--outlines", default="auto")
    parser.add_argument("--no-cost", action="store_true")
    parser.add_argument("--pictures", type=Path, help="where to put side-by-side pictures")
    args = parser.parse_args()
    restorer = Restorer.from_pretrained(args.model)
    found = list(_photos(args.photos, args.people))
    chosen = found[:: max(1, len(found) // args.count)][: args.count]
    result = {"model": args.model, "recipe": args.recipe, "photos": len(chosen)}
    result |= _quality(restorer, chosen, args)
    if not args.no_cost:
        result["cost"] = _cost(restorer, found)
    print(json.dumps(result | machine(), indent=1))


def _photos(folder: Path, people: Path) -> Iterator[tuple[Path, tuple[Box, ...]]]:
    """Photos with at least one person of LEAST pixels, by the size of the largest."""
    rows = []
    for name, found in read_people(people).items():
        boxes = tuple(p.box for p in found if min(p.box[2:]) >= LEAST)
        if boxes:
            rows.append((max(max(box[2:]) for box in boxes), folder / name, boxes))
    yield from ((path, boxes) for _, path, boxes in sorted(rows))


def _quality(
    restorer: Restorer, photos: list[tuple[Path, tuple[Box, ...]]], args: argparse.Namespace
) -> dict[str, object]:
    metric = load_metric("lpips-alex")
    recipe = find_recipe(args.recipe)
    enlarging = Restorer(restorer.model, name=args.model, fidelity=restorer.fidelity)
    enlarging.capabilities = dataclasses.replace(restorer.capabilities, person_crops=True)
    rows: dict[str, list[float]] = {}
    seams, smaller = [], []
    for path, boxes in photos:
        hq = read_photo(path).pixels
        drawn = draw_for(recipe, 0, path.name)
        damaged = degrade(torch.from_numpy(_planes(hq)), [drawn])[0].clamp(0, 1).numpy()
        lq = np.rint(damaged.transpose(1, 2, 0) * 255).astype(np.uint8)
        choice = PeopleChoice(boxes=boxes, outlines=args.outlines)
        pictures = {
            "input": lq,
            "off": restorer(lq).pixels,
            "auto": restorer(lq, people="auto", choice=choice).pixels,
            "only": restorer(lq, people="only", choice=choice).pixels,
            "enlarged": enlarging(lq, people="auto", choice=choice).pixels,
        }
        for name, picture in pictures.items():
            rows.setdefault(name, []).extend(_inside(metric, picture, hq, box) for box in boxes)
        smaller += [1.25 * max(box[2:]) < restorer.capabilities.native_size for box in boxes]
        plain = restorer(
            lq, people="only", choice=dataclasses.replace(choice, outlines="none")
        ).pixels
        seams += [_seam(plain, pictures["off"], lq, box) for box in boxes]
        if args.pictures:
            write_photo(
                Photo.from_array(np.hstack(list(pictures.values()))),
                args.pictures / f"{path.stem}.png",
            )
    small = np.array(smaller)
    return {
        "people": len(small),
        "lpips_alex": {name: round(float(np.mean(values)), 4) for name, values in rows.items()},
        "people_below_native_size": int(small.sum()),
        "lpips_alex_of_these": {
            name: round(float(np.array(values)[small].mean()), 4) for name, values in rows.items()
        },
        "gradients_at_the_border": round(float(np.mean(seams)), 4),
    }


def _inside(metric: Metric, picture: np.ndarray, hq: np.ndarray, box: Box) -> float:
    x, y, w, h = box
    part = np.s_[int(y) : int(np.ceil(y + h)), int(x) : int(np.ceil(x + w))]
    return float(metric(*(torch.from_numpy(_planes(image[part])) for image in (picture, hq)))[0])


def _planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255


def _seam(pasted: np.ndarray, restored: np.ndarray, given: np.ndarray, box: Box) -> float:
    """Gradients where the mask falls, over those of the two pictures as far as they are seen."""
    x, y, w, h = box
    size = (given.shape[0], given.shape[1])
    edges = (x, y, x + w, y + h)
    window = x0, y0, x1, y1 = around(edges, size)
    mask = box_mask(edges, window, size)
    slopes = [_slope(image[y0:y1, x0:x1]) for image in (pasted, restored, given)]
    expected = mask * slopes[1] + (1 - mask) * slopes[2]
    ring = (mask > 0) & (mask < 1)
    return float(slopes[0][ring].sum() / expected[ring].sum())


def _slope(pixels: np.ndarray) -> np.ndarray:
    planes = pixels.astype(np.float64)
    steps = (np.abs(np.diff(planes, axis=a, append=planes.take([-1], a))) for a in (0, 1))
    return np.sum([step.sum(2) for step in steps], axis=0)


def _cost(restorer: Restorer, found: list[tuple[Path, tuple[Box, ...]]]) -> dict[str, object]:
    """Seconds for a photo of 12 megapixels with four people."""
    photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    boxes = []
    for i, (path, people) in enumerate(found[len(found) // 2 :: 7][:4]):
        image = Image.open(path).convert("RGB")
        top, left = i // 2 * HEIGHT // 2, i % 2 * WIDTH // 2
        size = (WIDTH // 2, HEIGHT // 2)
        photo[top : top + size[1], left : left + size[0]] = np.asarray(image.resize(size))
        sx, sy = size[0] / image.width, size[1] / image.height
        x, y, w, h = people[0]
        boxes.append((left + x * sx, top + y * sy, w * sx, h * sy))
    rows: dict[str, object] = {"boxes": [[round(value) for value in box] for box in boxes]}
    ways = {
        "only": ("only", PeopleChoice(boxes=tuple(boxes))),
        "auto, with a fidelity of everyone": (
            "auto",
            PeopleChoice(boxes=tuple(boxes), fidelity=tuple((n, 1.0) for n in range(1, 5))),
        ),
    }
    for name, (mode, choice) in ways.items():
        began = time.perf_counter()
        timings = restorer(photo, people=mode, choice=choice).timings
        seconds = {part: round(value, 2) for part, value in timings.items()}
        rest = timings["read"] + timings["color"] + timings["paste"]
        rows[name] = seconds | {
            "rest over model": round(rest / timings["model"], 4),
            "paste over model": round(timings["paste"] / timings["model"], 4),
            "wall": round(time.perf_counter() - began, 2),
        }
    return rows


if __name__ == "__main__":
    main()
