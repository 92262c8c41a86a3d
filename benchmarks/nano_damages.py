"""How well nano and its kin do on one kind of damage at a time; prints JSON.

The damage is made by Pillow and NumPy, no part of it by hbr:

- small: the centre 384x384 of every photo is made smaller (bicubic with antialiasing), saved as
  JPEG, and enlarged to its old size by bicubic;
- noise, JPEG, and both: of the centre 512x512, made half as large so that it has no damage of its
  own. Noise is Gaussian, its σ in 8-bit levels; JPEG files have 4:2:0 chroma;
- crisp: the centre 512x512 is made 3 times smaller by Lanczos and sharpened, as web sites make
  their small copies (unsharp mask of σ 0.8 and 80 %), and saved as JPEG.

Beside the models it measures non-local means as OpenCV has them, of strength 0.8 σ, or 3 without
noise.
A model is written as in nano_quality.py.

Usage: python benchmarks/nano_damages.py [PHOTOS] [--model nano --model other=FILE …]
       [--metric psnr-rgb …] [--only small|full-size|crisp] [--count 24]
"""

import argparse
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from machine import machine
from nano_quality import (
    PHOTOS,
    by_id,
    difference_of,
    metrics_of,
    model_of,
    non_local_means,
    pairs_of,
    score_of,
)
from PIL import Image, ImageFilter

SMALL = ((2, 95), (2, 75), (3, 90), (4, 95))
"""How many times smaller, and the quality of the JPEG."""
FULL_SIZE = ((0, 20), (0, 40), (0, 60), (0, 80), (5, 0), (15, 0), (25, 0), (50, 0), (10, 60))
"""σ of the noise, and the quality of the JPEG; 0 for none."""
CRISP = (95, 85, 70)
"""The quality of the JPEG."""

Pair = tuple[np.ndarray, np.ndarray]
"""The photo and the damaged photo, uint8 [h, w, 3] each."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOS)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--metric", action="append", help="by name (default: psnr-rgb)")
    parser.add_argument("--only", choices=("small", "full-size", "crisp"))
    parser.add_argument("--count", type=int, default=24)
    args = parser.parse_args()
    metrics = metrics_of(args.metric or ["psnr-rgb"], None)
    ids = [metric.info.id for metric in metrics]
    models = dict(model_of(spec, "auto") for spec in args.model or ["nano"])
    out: dict[str, object] = {}
    for title, pairs, sigma in damages(args.photos, args.count, args.only):
        rows: dict[str, list[list[float]]] = {}
        for hq, lq in pairs:
            images = {"input": lq, "non_local_means": non_local_means(lq, 0.8 * sigma or 3)}
            images |= {name: run(lq, hq) for name, run in models.items()}
            for name, image in images.items():
                rows.setdefault(name, []).append([score_of(m, image, hq) for m in metrics])
        table = {name: np.array(scores) for name, scores in rows.items()}
        out[title] = {
            "mean": {name: by_id(ids, scores.mean(axis=0)) for name, scores in table.items()},
            "beside the input": {
                name: difference_of(ids, scores - table["input"])
                for name, scores in table.items()
                if name != "input"
            },
        }
    made = {"benchmark": "nano_damages", "photos": args.count, **out}
    print(json.dumps({**made, **machine()}, indent=1))


def damages(photos: Path, count: int, only: str | None) -> Iterator[tuple[str, list[Pair], float]]:
    """Each damage: what it is called, its pairs, and the σ of its noise."""
    if only in (None, "small"):
        whole = [hq for hq, _ in pairs_of(photos, None, count, 384, "none")]
        for factor, quality in SMALL:
            title = f"{factor} times smaller, JPEG {quality}"
            yield title, [(hq, enlarged(hq, factor, quality)) for hq in whole], 0.0
    if only in (None, "full-size"):
        halves = [smaller(hq, 2) for hq, _ in pairs_of(photos, None, count, 512, "none")]
        for sigma, quality in FULL_SIZE:
            rng = np.random.default_rng(0)
            parts = [f"noise {sigma}" * bool(sigma), f"JPEG {quality}" * bool(quality)]
            pairs = [(hq, saved(noisy(hq, sigma, rng), quality)) for hq in halves]
            yield ", ".join(filter(None, parts)), pairs, float(sigma)
    if only in (None, "crisp"):
        copies = [crisp(hq, 3) for hq, _ in pairs_of(photos, None, count, 512, "none")]
        for quality in CRISP:
            yield f"crisp, JPEG {quality}", [(hq, saved(hq, quality)) for hq in copies], 0.0


def smaller(
    pixels: np.ndarray, factor: int, method: Image.Resampling = Image.Resampling.BICUBIC
) -> np.ndarray:
    """As Pillow makes it smaller, with antialiasing."""
    h, w = pixels.shape[:2]
    return np.array(Image.fromarray(pixels).resize((w // factor, h // factor), method))


def crisp(pixels: np.ndarray, factor: int) -> np.ndarray:
    """Made smaller by Lanczos, and sharpened."""
    small = Image.fromarray(smaller(pixels, factor, Image.Resampling.LANCZOS))
    return np.array(small.filter(ImageFilter.UnsharpMask(radius=0.8, percent=80, threshold=0)))


def saved(pixels: np.ndarray, quality: int) -> np.ndarray:
    """As a JPEG file of this quality has it; of quality 0, as it is."""
    if not quality:
        return pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as photo:
        return np.array(photo)


def noisy(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """With Gaussian noise, rounded to 8 bits."""
    return np.clip(np.rint(pixels + rng.normal(0, sigma, pixels.shape)), 0, 255).astype(np.uint8)


def enlarged(hq: np.ndarray, factor: int, quality: int) -> np.ndarray:
    """Made smaller, saved as JPEG and enlarged again; uint8 [h, w, 3], as `hq`."""
    small = Image.fromarray(saved(smaller(hq, factor), quality))
    return np.array(small.resize((hq.shape[1], hq.shape[0]), Image.Resampling.BICUBIC))


if __name__ == "__main__":
    main()
