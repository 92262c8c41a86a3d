"""Puts photos and their restored versions side by side: side_by_side.py BEFORE AFTER OUT.

BEFORE is a photo or a folder of photos; AFTER the folder with the restored ones, under the same
names; OUT the folder for the pictures. `before-after.jpg` there shows all of them, the restored
ones below.
"""

import sys
from pathlib import Path

import numpy as np

from hbr.image import Photo, is_photo_name, read_photo, write_photo

GAP = 8
SHEET_HEIGHT = 440


def side_by_side(before: Photo, after: Photo) -> Photo:
    """Both in one picture, the left one enlarged to the right one's height if need be."""
    left, right = before.pil().convert("RGB"), after.pil().convert("RGB")
    left = left.resize(right.size)
    gap = np.full((right.height, GAP, 3), 255, np.uint8)
    return Photo.from_array(np.hstack([np.asarray(left), gap, np.asarray(right)]))


def sheet(pairs: list[tuple[Photo, Photo]]) -> Photo:
    """All in one picture: a row of photos, and below it the row of the restored ones."""
    rows = []
    for row in zip(*pairs, strict=True):
        cells = []
        for photo in row:
            height, width = photo.size
            small = (
                photo.pil().convert("RGB").resize((SHEET_HEIGHT * width // height, SHEET_HEIGHT))
            )
            cells.append(
                np.pad(np.asarray(small), ((0, GAP), (0, GAP), (0, 0)), constant_values=255)
            )
        rows.append(np.hstack(cells))
    return Photo.from_array(np.vstack(rows)[:-GAP, :-GAP])


def main() -> None:
    """Make a picture for each photo, and say where they are."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    source, restored, out = map(Path, sys.argv[1:])
    photos = sorted(source.iterdir()) if source.is_dir() else [source]
    out.mkdir(parents=True, exist_ok=True)
    made = []
    pairs = []
    for photo in filter(is_photo_name, photos):
        pairs.append((read_photo(photo), read_photo(restored / photo.name)))
        made.append(out / f"{photo.stem}-before-after.jpg")
        write_photo(side_by_side(*pairs[-1]), made[-1])
    if pairs:
        made.append(out / "before-after.jpg")
        write_photo(sheet(pairs), made[-1])
    print("before/after pictures:", *made)


if __name__ == "__main__":
    main()
