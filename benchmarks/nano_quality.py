"""How good nano and its kin are on photos that they never saw; prints JSON.

Every photo of the folder gives its centre, 512x512, degraded by the Real-ESRGAN recipe with a
generator seeded with (0, number of the photo), or by whoever made the folder --lq, whose files
are named like the photos and show their centres. Restored by `hbr.Restorer` as `hbr restore` runs
it, from and to 8 bits. Beside it the input itself, and non-local means as OpenCV has them.

A model is a name or a file, "NAME=FILE" to call it so in the table, "…@0.3" for a fidelity, and
"…@hq" to make its prompt of the undamaged photo, as no real restoration can (OSDHuman's table 4).

"grid-8" is how much larger neighbouring pixels differ across the borders of 8x8 squares than
inside them (grey, mean of both axes): 1 without a grid. "grid-4" is the difference of the
two (0 to 255) for 4x4 squares, the patches of nano, in the flattest tenth of the photo's blocks.

Usage: python benchmarks/nano_quality.py [PHOTOS] [--lq DIR] [--model nano --model other=FILE …]
       [--metric lpips-alex …] [--damaged-only] [--niqe niqe.npz] [--color auto]
       [--count 100] [--crop 512] [--pictures DIR]
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import machine

import hbr
from hbr.image import Photo, read_photo, write_photo
from hbr.metrics import Metric, MetricError, load_metric
from hbr.models import load_model
from hbr.training.config import ValidationConfig
from hbr.training.photos import open_photos
from hbr.training.validation import validation_pairs

PHOTOS = Path("../shared/photos/clothing-co-parsing/val")
METRICS = ("psnr-rgb", "ssim-rgb", "log-spectrum")
# computed if their weights are here: hbr fetch lpips-alex lpips-vgg dists niqe brisque
WITH_WEIGHTS = ("lpips-alex", "lpips-vgg", "dists", "niqe", "brisque")

Restore = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Restored pixels of the damaged ones; the undamaged ones are for prompts alone."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOS)
    parser.add_argument("--lq", type=Path, help="damaged centres of the photos, by their names")
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--metric", action="append", help="by name; all if none is given")
    parser.add_argument("--damaged-only", action="store_true", help="restore no undamaged photos")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--crop", type=int, default=512, help="edge of the centre, in pixels")
    parser.add_argument("--color", default="auto")
    parser.add_argument("--niqe", type=Path, help="a model of sharp photos: hbr metrics fit-niqe")
    parser.add_argument("--pictures", type=Path, help="where to put side-by-side pictures")
    args = parser.parse_args()
    metrics = metrics_of(args.metric, args.niqe)
    models = dict(model_of(spec, args.color) for spec in args.model or ["nano"])
    methods: dict[str, Restore] = {
        "input": lambda lq, _: lq,
        "non_local_means": lambda lq, _: non_local_means(lq),
        **models,
    }
    undamaged = [] if args.damaged_only else list(models)
    names = [*methods, *(f"{name} on undamaged photos" for name in undamaged), "photos themselves"]
    rows: dict[str, list[list[float]]] = {name: [] for name in names}
    for i, (hq, lq) in enumerate(pairs_of(args.photos, args.lq, args.count, args.crop)):
        images = {name: method(lq, hq) for name, method in methods.items()}
        if args.pictures:
            shown = [lq, *(images[name] for name in models), hq]
            write_photo(Photo.from_array(np.hstack(shown)), args.pictures / f"{i:03d}.jpg")
        images |= {f"{name} on undamaged photos": models[name](hq, hq) for name in undamaged}
        images["photos themselves"] = hq
        for name, image in images.items():
            scores = [score_of(metric, image, hq) for metric in metrics]
            border, inside = _steps(image, 8)
            border4, inside4 = _steps(_flattest(image, hq), 4)
            rows[name].append([*scores, border / inside, border4 - inside4])
    ids = [*(metric.info.id for metric in metrics), "grid-8", "grid-4"]
    print(json.dumps(_summary(ids, rows, list(models), args), indent=1))


def pairs_of(
    photos: Path, lq: Path | None, count: int, crop: int, recipe: str = "real-esrgan"
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Undamaged and damaged centres, uint8 [crop, crop, 3] each; without `lq`, by the recipe."""
    recipe = recipe if lq is None else "none"
    config = ValidationConfig(photos=photos, count=count, crop=crop, recipe=recipe)
    found = open_photos(config)
    for i, pair in enumerate(validation_pairs(config, photos=found)):
        if lq is None:
            yield pixels_of(pair.hq), pixels_of(pair.lq)
        else:
            (damaged,) = lq.glob(f"{Path(found.name(i)).stem}.*")
            yield pixels_of(pair.hq), read_photo(damaged).pixels


def metrics_of(names: list[str] | None, niqe: Path | None) -> list[Metric]:
    """Those that are named, or all whose weights are on this machine; what is left out is told."""
    if names:
        return [load_metric(n, weights=niqe if n == "niqe" else None) for n in names]
    found = [load_metric(name) for name in METRICS]
    for name in WITH_WEIGHTS:
        try:
            found.append(load_metric(name, weights=niqe if name == "niqe" else None))
        except MetricError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def model_of(spec: str, color: str) -> tuple[str, Restore]:
    """The name of a model in the table, and how it restores."""
    name, _, place = spec.rpartition("=")
    path, _, how = place.partition("@")
    name = name or Path(place).stem
    if how == "hq":
        model = load_model(path)

        @torch.inference_mode()
        def with_hq_prompt(lq: np.ndarray, hq: np.ndarray) -> np.ndarray:
            return pixels_of(model(tensor_of(lq), model.prompt(tensor_of(hq))).clamp(0, 1))

        return name, with_hq_prompt
    restorer = hbr.Restorer.from_pretrained(path, fidelity=float(how) if how else None)
    return name, lambda lq, _: restorer(lq, color=color).pixels


def non_local_means(pixels: np.ndarray, strength: float = 10) -> np.ndarray:
    """The baseline: one strength for luma and chroma, windows of 7 and 21 pixels."""
    return cv2.fastNlMeansDenoisingColored(pixels, None, strength, strength, 7, 21)


def score_of(metric: Metric, image: np.ndarray, reference: np.ndarray) -> float:
    """What a metric says of an image, beside its reference where it takes one."""
    given = [tensor_of(image)]
    if metric.info.kind == "full-reference":
        given.append(tensor_of(reference))
    return float(metric(*given))


def _steps(image: np.ndarray, edge: int) -> np.ndarray:
    """Mean steps across the borders of squares, and inside; of [h, w, 3] or [n, h, w, 3]."""
    grey = image.mean(axis=-1)
    both = []
    for axis in (-2, -1):
        steps = np.abs(np.diff(grey, axis=axis))
        along = np.moveaxis(steps, axis, -1).reshape(-1, steps.shape[axis]).mean(axis=0)
        border = np.arange(1, len(along) + 1) % edge == 0
        both.append((along[border].mean(), along[~border].mean()))
    return np.mean(both, axis=0)


def _flattest(image: np.ndarray, reference: np.ndarray, edge: int = 32) -> np.ndarray:
    """The blocks of the image where the reference varies least, [n, edge, edge, 3]."""

    def blocks(of: np.ndarray) -> np.ndarray:
        h, w = (n // edge * edge for n in of.shape[:2])
        cut = of[:h, :w].reshape(h // edge, edge, w // edge, edge, 3)
        return cut.swapaxes(1, 2).reshape(-1, edge, edge, 3)

    order = np.argsort(blocks(reference).astype(float).std(axis=(1, 2, 3)))
    return blocks(image)[order[: max(1, len(order) // 10)]]


def _summary(
    ids: list[str], rows: dict[str, list[list[float]]], models: list[str], args: argparse.Namespace
) -> dict:
    """Means; and differences to the input and to the first model, photo by photo."""
    table = {name: np.array(values) for name, values in rows.items()}  # [photos, metrics]
    n = len(table["input"])
    compared = dict.fromkeys(["non_local_means", *models], "input")
    out: dict[str, object] = {
        "benchmark": "nano_quality",
        "photos": n,
        "color": args.color,
        "mean": {name: by_id(ids, v.mean(axis=0)) for name, v in table.items()},
        "beside the input": {
            name: difference_of(ids, table[name] - table[other]) for name, other in compared.items()
        },
    }
    if len(models) > 1:
        first = table[models[0]]
        key = f"beside {models[0]}"
        out[key] = {name: difference_of(ids, table[name] - first) for name in models[1:]}
    if "psnr-rgb" in ids and not args.damaged_only:
        at = ids.index("psnr-rgb")
        worst = {name: table[f"{name} on undamaged photos"][:, at].min() for name in models}
        worst_psnr = {n: round(float(v), 2) for n, v in worst.items()}
        out["worst psnr-rgb on undamaged photos"] = worst_psnr
    return {**out, **machine()}


def difference_of(ids: list[str], difference: np.ndarray) -> dict[str, dict[str, object]]:
    """Mean, its 95 % interval by bootstrap over photos, lowest and highest; [photos, metrics]."""
    n = len(difference)
    drawn = np.random.default_rng(0).integers(n, size=(10_000, n))
    out = {}
    for i, name in enumerate(ids):
        values = difference[:, i]
        low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
        out[name] = {
            "mean": round(float(values.mean()), 4),
            "interval_95": [round(float(low), 4), round(float(high), 4)],
            "lowest": round(float(values.min()), 4),
            "highest": round(float(values.max()), 4),
        }
    return out


def by_id(ids: list[str], values: np.ndarray) -> dict[str, float | None]:
    """Rounded; None where a metric is undefined, as PSNR of a photo beside itself."""
    finite = (round(float(v), 4) if np.isfinite(v) else None for v in values)
    return dict(zip(ids, finite, strict=True))


def pixels_of(image: torch.Tensor) -> np.ndarray:
    """[1, 3, h, w] in [0, 1] → uint8 [h, w, 3]."""
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


def tensor_of(pixels: np.ndarray) -> torch.Tensor:
    """uint8 [h, w, 3] → [1, 3, h, w] in [0, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255


if __name__ == "__main__":
    main()
