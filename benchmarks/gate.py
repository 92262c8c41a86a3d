"""How well the gate tells photos that need nothing from damaged ones; prints JSON.

`fit` fits the regression of `hbr.restoration.pixels.gate` to photos of the folder `train`: their
centre 320x320, as it is and, made smaller by up to 0.6 or not, once more; against the same degraded
by the recipes real-esrgan, photo and light, in turn, at a strength drawn from 0.3 to 1. Of these,
those count as visibly damaged that are below 30 dB. A third of both sides is left as it is and two
thirds are saved as JPEG once more, of quality 75 to 96 on any grid: JPEG alone is no damage here.
The bounds of what the models know are the 99th percentiles of all that was degraded.

`evaluate`, the default, measures the regression in the source on photos that it was not fitted to:
`val` (its centre 512x512) against `val-lq`, damaged by the public Real-ESRGAN pipeline, and against
the centre 320x320 of `val` damaged as above; the photos of coco-cc, as they are; and those of
real-low-quality, each with its score.

Usage: python benchmarks/gate.py [fit | evaluate] [--photos ../shared/photos] [--count 240]
"""

import argparse
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from machine import machine
from scipy.optimize import minimize

from hbr.degradation import degrade, draw, find_recipe, weakened
from hbr.image import read_photo
from hbr.restoration.pixels import gate

RECIPES = ("real-esrgan", "photo", "light")
VISIBLE = 30.0  # dB
SKIPPED = 0.02
RATES = (0.0, 0.01, 0.02, 0.05, 0.1)


def main() -> None:
    """Fit or evaluate, and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("fit", "evaluate"), nargs="?", default="evaluate")
    parser.add_argument("--photos", type=Path, default=Path("../shared/photos"))
    parser.add_argument("--count", type=int, default=240, help="photos to fit to")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = fit(args.photos, args.count) if args.what == "fit" else evaluate(args.photos)
    print(json.dumps({**found, **machine()}, indent=1))


def fit(photos: Path, count: int) -> dict[str, object]:
    """The constants of `hbr.restoration.pixels.gate`."""
    rng = np.random.default_rng(0)
    files = _files(photos / "clothing-co-parsing/train")
    files = [files[i] for i in rng.permutation(len(files))[:count]]
    clean, damaged, known = [], [], []
    for number, path in enumerate(files):
        pixels = read_photo(path).pixels
        crop = _centre(pixels, 320)
        smaller = _centre(_smaller(pixels, rng.uniform(0.6, 1)), 320)
        again = smaller if rng.random() < 0.5 else crop
        clean += [gate.measure(crop), gate.measure(_saved(again, rng))]
        lq = _degraded(crop, number, rng)
        known.append(gate.measure(_saved(lq, rng)))
        if _psnr(lq, crop) < VISIBLE:
            damaged.append(known[-1])
    intercept, weights = _regression(_features(clean), _features(damaged))
    scores = _sigmoid(intercept + _features(damaged) @ weights)
    told = [m for m in known if m is not None]
    return {
        "photos": len(files),
        "visibly_damaged": len(damaged),
        "INTERCEPT": round(float(intercept), 3),
        "WEIGHTS": [round(float(w), 3) for w in weights],
        "THRESHOLD": round(float(np.quantile(scores, SKIPPED)), 3),
        "MOST_NOISE": round(float(np.quantile([m.noise for m in told], 0.99)), 1),
        "MOST_WIDTH": round(float(np.quantile([m.width for m in told], 0.99)), 1),
    }


def evaluate(photos: Path) -> dict[str, object]:
    """Areas under ROC curves, and what is skipped at the threshold."""
    rng = np.random.default_rng(1)
    people = photos / "clothing-co-parsing"
    clean = [_centre(read_photo(path).pixels, 512) for path in _files(people / "val")]
    sets: dict[str, list[gate.Judgement]] = {"val": [gate.judge(crop) for crop in clean]}
    sets["val-lq"] = [gate.judge(pixels) for pixels in _pixels(people / "val-lq")]
    crops = [_centre(crop, 320) for crop in clean]
    own = [(crop, _degraded(crop, i, rng)) for i, crop in enumerate(crops)]
    sets["val degraded by hbr"] = [gate.judge(lq) for _, lq in own]
    visible = [gate.judge(lq) for crop, lq in own if _psnr(lq, crop) < VISIBLE]
    sets[f"of these, below {VISIBLE:g} dB"] = visible
    sets["coco-cc"] = [gate.judge(pixels) for pixels in _pixels(photos / "coco-cc/images")]
    real = {p.stem: gate.judge(read_photo(p).pixels) for p in _files(photos / "real-low-quality")}
    sets["real-low-quality"] = list(real.values())
    began = time.process_time()
    for _ in range(20):
        gate.measure(clean[0])
    seconds = (time.process_time() - began) / 20
    against = [name for name in sets if name.startswith(("val-", "val d", "of"))]
    return {
        "threshold": gate.THRESHOLD,
        "auc": {
            f"{good} / {bad}": round(_auc(_scores(sets[good]), _scores(sets[bad])), 4)
            for good in ("val", "coco-cc")
            for bad in against
        },
        "roc": {f"val / {bad}": _roc(_scores(sets["val"]), _scores(sets[bad])) for bad in against},
        "verdicts": {name: _counts(judged) for name, judged in sets.items()},
        "real-low-quality": {name: [j.verdict, j.score] for name, j in sorted(real.items())},
        "seconds_of_512": round(seconds, 4),
    }


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png", ".webp"))


def _pixels(folder: Path) -> Iterator[np.ndarray]:
    for path in _files(folder):
        yield read_photo(path).pixels


def _centre(pixels: np.ndarray, edge: int) -> np.ndarray:
    top, left = (max(0, (length - edge) // 2) for length in pixels.shape[:2])
    return pixels[top : top + edge, left : left + edge]


def _smaller(pixels: np.ndarray, factor: float) -> np.ndarray:
    size = tuple(round(length * factor) for length in pixels.shape[1::-1])
    return np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.LANCZOS))


def _saved(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As JPEG, on any grid, or as it is."""
    if rng.integers(3) == 0:
        return pixels
    top, left = rng.integers(0, 8, 2)
    padded = np.pad(pixels, ((top, 0), (left, 0), (0, 0)), mode="edge")
    file = io.BytesIO()
    PIL.Image.fromarray(padded).save(file, "JPEG", quality=int(rng.integers(75, 97)))
    return np.asarray(PIL.Image.open(file))[top:, left:]


def _degraded(pixels: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    recipe = weakened(find_recipe(RECIPES[number % len(RECIPES)]), rng.uniform(0.3, 1))
    drawn = draw(replace(recipe, motion=None), 1, torch.Generator().manual_seed(number))
    hq = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    lq = degrade(hq, drawn)[0].permute(1, 2, 0)
    return (lq * 255).round().to(torch.uint8).numpy()


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _features(measured: Sequence[gate.Measures | None]) -> np.ndarray:
    return np.array([gate.features(m) for m in measured if m is not None])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _regression(clean: np.ndarray, damaged: np.ndarray) -> tuple[float, np.ndarray]:
    """Logistic regression with both sides weighted alike, a little ridge on standardised features.

    Returns:
        Intercept and weights of the features as they are.
    """
    x = np.vstack([clean, damaged])
    sign = np.repeat([-1.0, 1.0], [len(clean), len(damaged)])
    weight = np.repeat([0.5 / len(clean), 0.5 / len(damaged)], [len(clean), len(damaged)])
    mean, deviation = x.mean(0), x.std(0)
    z = (x - mean) / deviation

    def loss(theta: np.ndarray) -> float:
        logits = theta[0] + z @ theta[1:]
        return float(weight @ np.logaddexp(0, -sign * logits) + 1e-4 * (theta[1:] ** 2).sum())

    theta = minimize(loss, np.zeros(x.shape[1] + 1)).x
    weights = theta[1:] / deviation
    return float(theta[0] - weights @ mean), weights


def _scores(judged: Sequence[gate.Judgement]) -> np.ndarray:
    """Photos of which the gate cannot tell count as damaged, since they are restored."""
    return np.array([1.0 if j.score is None else j.score for j in judged])


def _auc(good: np.ndarray, bad: np.ndarray) -> float:
    """The odds that a damaged photo scores higher than a good one; ties count half."""
    above = (bad[:, None] > good).mean() + 0.5 * (bad[:, None] == good).mean()
    return float(above)


def _roc(good: np.ndarray, bad: np.ndarray) -> dict[str, float]:
    """The part of the good photos that is skipped where this part of the damaged ones is."""
    cuts = {rate: np.sort(bad)[int(rate * len(bad))] for rate in RATES}
    return {f"{rate:.0%}": round(float((good < cut).mean()), 3) for rate, cut in cuts.items()}


def _counts(judged: Sequence[gate.Judgement]) -> dict[str, int]:
    verdicts = [j.verdict for j in judged]
    return {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))}


if __name__ == "__main__":
    main()
