"""How good nano is on photos that it never saw; prints JSON.

Every photo of the folder gives its centre 512x512, degraded by the Real-ESRGAN recipe with a
generator seeded with (0, number of the photo). Restored by `hbr.Restorer` as `hbr restore` runs
it, from and to 8 bits. Beside it the input itself, and non-local means as OpenCV has them.

Usage: python benchmarks/nano_quality.py [PHOTOS] [--pictures DIR]
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from machine import machine

import hbr
from hbr.image import Photo, write_photo
from hbr.metrics import psnr, ssim
from hbr.training.config import ValidationConfig
from hbr.training.data import validation_pairs

PHOTOS = Path("../shared/photos/clothing-co-parsing/val")


def non_local_means(pixels: np.ndarray) -> np.ndarray:
    """The baseline: strength 10 for luma and chroma, windows of 7 and 21 pixels."""
    return cv2.fastNlMeansDenoisingColored(pixels, None, 10, 10, 7, 21)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOS)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--color", default="wavelet")
    parser.add_argument("--pictures", type=Path, help="where to put side-by-side pictures")
    args = parser.parse_args()
    restorer = hbr.Restorer.from_pretrained(args.model)

    def restore(pixels: np.ndarray) -> np.ndarray:
        return restorer(pixels, color=args.color).pixels

    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "input": lambda pixels: pixels,
        "non_local_means": non_local_means,
        "restored": restore,
    }
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in [*methods, "clean"]}
    for i, pair in enumerate(validation_pairs(ValidationConfig(args.photos, count=args.count))):
        hq, lq = (_pixels(x) for x in (pair.hq, pair.lq))
        images = {name: method(lq) for name, method in methods.items()}
        images["clean"] = restore(hq)
        for name, image in images.items():
            rows[name].append(_score(image, hq))
        if args.pictures:
            side_by_side = np.concatenate([lq, images["restored"], hq], axis=1)
            write_photo(Photo.from_array(side_by_side), args.pictures / f"{i:03d}.jpg")
    print(json.dumps(_summary(rows, args), indent=1))


def _summary(rows: dict[str, list[tuple[float, float]]], args: argparse.Namespace) -> dict:
    table = {name: np.array(values) for name, values in rows.items()}
    n = len(table["input"])
    gain = table["restored"] - table["input"]
    rng = np.random.default_rng(0)
    means = gain[rng.integers(n, size=(10_000, n))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return {
        "benchmark": "nano_quality",
        "photos": n,
        "model": args.model,
        "color": args.color,
        "psnr": {name: round(float(v[:, 0].mean()), 3) for name, v in table.items()},
        "ssim": {name: round(float(v[:, 1].mean()), 4) for name, v in table.items()},
        "psnr_gain": round(float(gain[:, 0].mean()), 3),
        "psnr_gain_95": [round(float(low[0]), 3), round(float(high[0]), 3)],
        "psnr_gain_worst": round(float(gain[:, 0].min()), 3),
        "psnr_gain_of_non_local_means": round(
            float((table["non_local_means"] - table["input"])[:, 0].mean()), 3
        ),
        "ssim_gain": round(float(gain[:, 1].mean()), 4),
        "clean_psnr_worst": round(float(table["clean"][:, 0].min()), 2),
        **machine(),
    }


def _pixels(image: torch.Tensor) -> np.ndarray:
    """[1, 3, h, w] in [0, 1] → uint8 [h, w, 3]."""
    return (image[0].permute(1, 2, 0) * 255).round().byte().numpy()


def _score(image: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM over R, G and B."""
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None] / 255 for x in (image, reference))
    return float(psnr(a, b)), float(ssim(a, b))


if __name__ == "__main__":
    main()
