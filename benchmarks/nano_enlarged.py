"""How well nano and its kin enlarge photos that are merely small; prints JSON.

The centre 384x384 of every photo is made smaller by Pillow (bicubic with antialiasing), saved as
JPEG, and enlarged to its old size by Pillow's bicubic. No part of the damage is made by hbr.
A model is written as in nano_quality.py.

Usage: python benchmarks/nano_enlarged.py [PHOTOS] [--model nano --model other=FILE …]
       [--metric psnr-rgb …] [--count 24]
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from machine import machine
from nano_quality import (
    PHOTOS,
    by_id,
    difference_of,
    metrics_of,
    model_of,
    pairs_of,
    score_of,
)
from PIL import Image

DAMAGES = ((2, 95), (2, 75), (3, 90), (4, 95))
"""How many times smaller, and the quality of the JPEG."""
CROP = 384


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOS)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--metric", action="append", help="by name (default: psnr-rgb)")
    parser.add_argument("--count", type=int, default=24)
    args = parser.parse_args()
    metrics = metrics_of(args.metric or ["psnr-rgb"], None)
    ids = [metric.info.id for metric in metrics]
    models = dict(model_of(spec, "wavelet") for spec in args.model or ["nano"])
    photos = [hq for hq, _ in pairs_of(args.photos, None, args.count, CROP, "none")]
    out: dict[str, object] = {}
    for factor, quality in DAMAGES:
        rows: dict[str, list[list[float]]] = {name: [] for name in ("input", *models)}
        for hq in photos:
            small = enlarged(hq, factor, quality)
            images = {"input": small, **{name: run(small, hq) for name, run in models.items()}}
            for name, image in images.items():
                rows[name].append([score_of(metric, image, hq) for metric in metrics])
        table = {name: np.array(scores) for name, scores in rows.items()}
        out[f"{factor} times smaller, JPEG {quality}"] = {
            "mean": {name: by_id(ids, scores.mean(axis=0)) for name, scores in table.items()},
            "beside the input": {
                name: difference_of(ids, table[name] - table["input"]) for name in models
            },
        }
    made = {"benchmark": "nano_enlarged", "photos": len(photos), **out}
    print(json.dumps({**made, **machine()}, indent=1))


def enlarged(hq: np.ndarray, factor: int, quality: int) -> np.ndarray:
    """Pixels made smaller, saved as JPEG and enlarged again; uint8 [h, w, 3], as `hq`."""
    size = hq.shape[1], hq.shape[0]
    small = Image.fromarray(hq).resize(
        (size[0] // factor, size[1] // factor), Image.Resampling.BICUBIC
    )
    file = io.BytesIO()
    small.save(file, "JPEG", quality=quality)
    with Image.open(file) as saved:
        return np.array(saved.resize(size, Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
