"""How good nano-diffbody is on photos that it never saw, by its ways of sampling; prints JSON.

Two sets of photos. "val": the centres, 512x512, of photos of Clothing Co-Parsing that --lq has
damaged; nobody's key points are known, so the maps are blank. "coco": the 24 photos of coco-cc that
the recipes leave out for this, centres of 256x256, degraded by the Real-ESRGAN recipe with a
generator seeded with (0, number of the photo); pose and attention of the annotated key points are
given, or not. Restored by `hbr.Restorer` from and to 8 bits, with the same seed for all.

Seconds are CPU time of this process for each photo; those of DiffBody include stage 1.

Usage: python benchmarks/nano_diffbody.py MODEL [--set val|coco] [--lq DIR] [--count 20]
       [--steps 20] [--strength 0.2] [--metric psnr-rgb …] [--pictures FILE.jpg --rows 8]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine
from nano_quality import by_id, difference_of, pairs_of, pixels_of, score_of

import hbr
from hbr.image import Photo, write_photo
from hbr.metrics import load_metric
from hbr.models.protocol import Sampling
from hbr.recipes import find_recipe
from hbr.training.conditions import ConditionMaker
from hbr.training.config import ConditionsConfig, ValidationConfig
from hbr.training.recipe import load_recipe
from hbr.training.validation import validation_pairs

VAL = Path("../shared/photos/clothing-co-parsing/val")
COCO = Path("../shared/photos/coco-cc")
N_HELD_OUT = 24
"""The last names that the recipes exclude; those before are photos of examples/ and tests/data."""

Given = dict[str, Any]
"""Settings of a restoration."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--set", choices=("val", "coco"), default="val")
    parser.add_argument("--lq", type=Path, default=VAL.with_name("val-lq"))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--strength", type=float, default=0.2, help="of a start from stage 1")
    parser.add_argument(
        "--metric", action="append", help="psnr-rgb and lpips-alex if none is given"
    )
    parser.add_argument("--pictures", type=Path, help="a JPEG of rows of pictures")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--edge", type=int, default=160, help="of a picture in it, in pixels")
    args = parser.parse_args()
    metrics = [load_metric(name) for name in args.metric or ("psnr-rgb", "lpips-alex")]
    methods = _methods(args)
    scores: dict[str, list[list[float]]] = {}
    seconds: dict[str, list[float]] = {}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        photos = _val(args) if args.set == "val" else _coco(args, Path(folder))
        for hq, lq, maps in photos:
            made = {"input": lq}
            for name, restore in methods.items():
                began = time.process_time()
                made[name] = restore(lq, maps)
                seconds.setdefault(name, []).append(time.process_time() - began)
            for name, image in made.items():
                scores.setdefault(name, []).append([score_of(m, image, hq) for m in metrics])
            if len(rows) < args.rows:
                rows.append(np.hstack([_small(x, args.edge) for x in (*made.values(), hq)]))
    if args.pictures:
        write_photo(Photo.from_array(np.vstack(rows)), args.pictures, quality=80)
    print(json.dumps(_summary([m.info.id for m in metrics], scores, seconds, args), indent=1))


def _methods(args: argparse.Namespace) -> dict[str, Callable[[np.ndarray, Given], np.ndarray]]:
    """What is compared, in the order of the pictures."""
    body = hbr.Restorer.from_pretrained(args.model)
    stage1 = hbr.Restorer(body.model.first, name="stage 1")
    nano = hbr.Restorer.from_pretrained("nano")

    def sampled(lq: np.ndarray, maps: Given, *, given: bool = False, **how: Any) -> np.ndarray:
        maps = maps if given else {"pose": "none", "attention": "none"}
        return body(lq, sampling=Sampling(steps=args.steps, **how), **maps).pixels

    near = {"start": "photo", "strength": args.strength}
    methods: dict[str, Callable[[np.ndarray, Given], np.ndarray]] = {
        "nano": lambda lq, _: nano(lq).pixels,
        "stage 1": lambda lq, _: stage1(lq).pixels,
        "ddpm, from noise": partial(sampled, sampler="ddpm"),
        "guided, from noise": partial(sampled, sampler="guided"),
        "ddpm": partial(sampled, sampler="ddpm", **near),
        "guided": partial(sampled, sampler="guided", **near),
    }
    if args.set == "coco":
        del methods["guided, from noise"]
        methods["ddpm, structure"] = partial(sampled, sampler="ddpm", given=True, **near)
        methods["guided, structure"] = partial(sampled, sampler="guided", given=True, **near)
    return methods


def _val(args: argparse.Namespace) -> Iterator[tuple[np.ndarray, np.ndarray, Given]]:
    """Undamaged and damaged pixels, uint8 [512, 512, 3] each; no maps."""
    for hq, lq in pairs_of(VAL, args.lq, args.count, 512):
        yield hq, lq, {}


def _coco(args: argparse.Namespace, folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, Given]]:
    """Undamaged and damaged pixels, uint8 [256, 256, 3] each, and files of their maps."""
    file = find_recipe("nano/diffbody-control")
    assert file is not None
    recipe = load_recipe(file)
    photos, maps = folder / "photos", folder / "maps"
    photos.mkdir()
    maps.mkdir()
    for name in recipe.data.sources[1].exclude[-N_HELD_OUT:]:
        (photos / name).symlink_to((COCO / "images" / name).resolve())
    config = ValidationConfig(
        photos=photos, count=args.count, crop=256, boxes=COCO / "instances.json"
    )
    for pair in validation_pairs(config, maker=ConditionMaker(ConditionsConfig())):
        pose, attention = maps / "pose.png", maps / "attention.npy"
        write_photo(Photo.from_array(pixels_of(pair.conditions.maps["pose"])), pose)
        np.save(attention, pair.conditions.maps["attention"][0, 0].numpy())
        given = {"pose": str(pose), "attention": str(attention)}
        yield pixels_of(pair.hq), pixels_of(pair.lq), given


def _small(image: np.ndarray, edge: int) -> np.ndarray:
    """The middle of an image, [edge, edge, 3]."""
    y, x = ((n - edge) // 2 for n in image.shape[:2])
    return image[y : y + edge, x : x + edge]


def _summary(
    ids: list[str],
    scores: dict[str, list[list[float]]],
    seconds: dict[str, list[float]],
    args: argparse.Namespace,
) -> dict[str, object]:
    """Means; differences to four of the methods, photo by photo."""
    table = {name: np.array(values) for name, values in scores.items()}  # [photos, metrics]

    def beside(other: str) -> dict[str, object]:
        return {n: difference_of(ids, v - table[other]) for n, v in table.items() if n != other}

    return {
        "benchmark": "nano_diffbody",
        "set": args.set,
        "photos": len(table["input"]),
        "steps": args.steps,
        "strength": args.strength,
        "mean": {name: by_id(ids, v.mean(axis=0)) for name, v in table.items()},
        "seconds": {name: round(float(np.mean(v)), 2) for name, v in seconds.items()},
        **{f"beside {name}": beside(name) for name in ("input", "stage 1", "ddpm", "guided")},
        **machine(),
    }


if __name__ == "__main__":
    main()
