"""A COCO file with one person, with key points, in each photo of a folder."""

import json
from pathlib import Path

from PIL import Image
from toy_training import DATA

# a person who stands, in parts of width and height of the photo
POINTS = (
    (0.50, 0.10), (0.52, 0.08), (0.48, 0.08), (0.55, 0.09), (0.45, 0.09), (0.62, 0.25),
    (0.38, 0.25), (0.68, 0.40), (0.32, 0.40), (0.70, 0.52), (0.30, 0.52), (0.58, 0.55),
    (0.42, 0.55), (0.58, 0.72), (0.42, 0.72), (0.58, 0.92), (0.42, 0.92),
)  # fmt: skip


def write_people(path: Path, photos: Path = DATA) -> Path:
    images, annotations = [], []
    for number, file in enumerate(sorted(photos.glob("*.[jp][pn]g")), 1):
        with Image.open(file) as photo:
            w, h = photo.size
        images.append({"id": number, "file_name": file.name, "width": w, "height": h})
        points = [v for x, y in POINTS for v in (x * w, y * h, 2)]
        box = [0.28 * w, 0.05 * h, 0.44 * w, 0.9 * h]
        annotations.append(
            {"id": number, "image_id": number, "category_id": 1, "bbox": box, "keypoints": points}
        )
    categories = [{"id": 1, "name": "person"}]
    values = {"images": images, "annotations": annotations, "categories": categories}
    path.write_text(json.dumps(values))
    return path
