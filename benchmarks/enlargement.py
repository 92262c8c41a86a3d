"""How well the enlargement of photos is estimated; prints JSON.

Photos are enlarged by known factors with four methods, as they are or saved as JPEG afterwards, and
estimated. For each: the median, the tenth and ninetieth percentile, and the part within 20 percent.

Usage: python benchmarks/enlargement.py PHOTOS... [--limit 20] [--jpeg 90]
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image

from hbr.restoration.pixels.enlargement import estimate_enlargement

METHODS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FACTORS = (1.0, 1.5, 2.0, 3.0, 4.0)


def enlarged(photo: Image.Image, factor: float, method: str, jpeg: int | None) -> Image.Image:
    """The photo at `factor` times its size; 1 leaves it as it is."""
    size = (round(photo.width * factor), round(photo.height * factor))
    image = photo if factor == 1 else photo.resize(size, METHODS[method])
    if jpeg is None:
        return image
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=jpeg)
    return Image.open(buffer)


def row(files: list[Path], factor: float, method: str, jpeg: int | None) -> dict[str, object]:
    """The estimates of all photos, in numbers."""
    found = []
    for file in files:
        with Image.open(file) as photo:
            image = enlarged(photo.convert("RGB"), factor, method, jpeg)
            found.append(estimate_enlargement(np.asarray(image)))
    low, median, high = np.quantile(found, (0.1, 0.5, 0.9))
    within = np.abs(np.log(np.array(found) / factor)) <= np.log(1.2)
    return {
        "method": method if factor > 1 else None,
        "factor": factor,
        "median": round(float(median), 2),
        "p10": round(float(low), 2),
        "p90": round(float(high), 2),
        "within_20_percent": round(float(within.mean()), 2),
    }


def main() -> None:
    """Measure every method at every factor."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path, help="files or folders")
    parser.add_argument("--limit", type=int, default=20, help="of each folder")
    parser.add_argument("--jpeg", type=int, help="quality of the JPEG that is saved afterwards")
    args = parser.parse_args()
    files = []
    for path in args.photos:
        files += sorted(path.glob("*.jpg"))[: args.limit] if path.is_dir() else [path]
    cases = [(m, f) for m in METHODS for f in FACTORS if f > 1 or m == "nearest"]
    rows = [row(files, factor, method, args.jpeg) for method, factor in cases]
    print(json.dumps({"photos": len(files), "jpeg": args.jpeg, "rows": rows} | machine(), indent=1))


if __name__ == "__main__":
    main()
