"""Photos through several models as one picture: a row for each photo, a column for each model.

The first column is the photo, enlarged by bicubic resampling where --scale enlarges. All show the
same square around the middle.

Usage: python benchmarks/nano_pictures.py FOLDER -o OUT.jpg --model nano@1 --model nano [--scale 2]
       [--count 12] [--every 1] [--crop 240]
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import hbr
from hbr.image import read_photo
from hbr.image.search import find_photos

GAP, HEADER = 4, 16


def main() -> None:
    """Restore the photos and write the picture."""
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", action="append", required=True, help="NAME or NAME@FIDELITY")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo")
    parser.add_argument("--crop", type=int, default=240, help="edge of the square in the result")
    args = parser.parse_args()
    restorers = {spec: _restorer(spec) for spec in args.model}
    rows = [_header(["input", *restorers], args.crop)]
    for file in find_photos(args.photos)[:: args.every][: args.count]:
        photo = read_photo(file)
        restored = [Image.fromarray(r(photo, scale=args.scale).pixels) for r in restorers.values()]
        before = photo.pil().resize(restored[0].size, Image.Resampling.BICUBIC)
        rows.append(_row([_middle(image, args.crop) for image in (before, *restored)]))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(args.output, quality=85)


def _restorer(spec: str) -> hbr.Restorer:
    name, _, fidelity = spec.partition("@")
    return hbr.Restorer.from_pretrained(name, fidelity=float(fidelity) if fidelity else None)


def _middle(image: Image.Image, edge: int) -> np.ndarray:
    """The square around the middle, [edge, edge, 3]; white beside smaller images."""
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    square = Image.new("RGB", (edge, edge), "white")
    square.paste(image.convert("RGB"), (-left, -top))
    return np.asarray(square)


def _row(cells: list[np.ndarray]) -> np.ndarray:
    padding = ((0, GAP), (0, GAP), (0, 0))
    return np.hstack([np.pad(cell, padding, constant_values=255) for cell in cells])


def _header(names: list[str], edge: int) -> np.ndarray:
    image = Image.new("RGB", (len(names) * (edge + GAP), HEADER), "white")
    for i, name in enumerate(names):
        ImageDraw.Draw(image).text((i * (edge + GAP) + 2, 2), name, fill="black")
    return np.asarray(image)


if __name__ == "__main__":
    main()
