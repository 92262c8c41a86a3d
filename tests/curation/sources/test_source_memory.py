"""Sources of any length in the same memory, each in a process of its own that says its peak."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

FEW, MANY = 1_000, 100_000
# What differs between two runs of the same length, and SQLite's page caches.
SLACK_MB = 12

READ = """
import re, sys
from pathlib import Path
from hbr.curation.sources.opening import guess_source, open_source
count = boxes = 0
for image in open_source(guess_source(sys.argv[1])):
    count += image.ref is not None or "not in" in image.error
    boxes += len(image.boxes or ())
# not ru_maxrss: what the parent had at the fork counts there
peak = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(count, boxes, int(peak) / 1024)
"""


def coco(folder: Path, rows: int) -> Path:
    path = folder / "instances.json"
    with path.open("w") as file:
        file.write('{"images": [')
        lines = (
            json.dumps({"id": n, "file_name": f"{n:012d}.jpg", "width": 640, "height": 480})
            for n in range(rows)
        )
        file.write(",".join(lines))
        file.write('], "annotations": [')
        # far from their images, and out of order
        boxes = (
            json.dumps({"id": n, "image_id": n * 7 % rows, "category_id": 1, "bbox": [1, 2, 3, n]})
            for n in range(rows)
        )
        file.write(",".join(boxes))
        file.write('], "categories": [{"id": 1, "name": "person"}]}')
    return path


def open_images(folder: Path, rows: int) -> Path:
    with (folder / "train-annotations-bbox.csv").open("w") as file:
        file.write("ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsGroupOf\n")
        for n in range(rows):
            file.write(f"{n * 7 % rows:016x},xclick,/m/01g317,1,0.1,0.2,0.3,0.4,0\n")
    with (folder / "train-images.csv").open("w") as file:
        file.write("ImageID,Subset,License,Author,Rotation\n")
        for n in range(rows):
            file.write(f"{n:016x},train,CC BY,Somebody {n},0\n")
    return folder


def odgt(folder: Path, rows: int) -> Path:
    path = folder / "annotation_train.odgt"
    with path.open("w") as file:
        for n in range(rows):
            person = {"tag": "person", "fbox": [1, 2, 3, n]}
            file.write(json.dumps({"ID": f"{n},abc", "gtboxes": [person]}) + "\n")
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.slow
@pytest.mark.parametrize("write", [coco, open_images, odgt])
def test_memory_is_flat(tmp_path: Path, write: Callable[[Path, int], Path]) -> None:
    peaks = []
    for rows in (FEW, MANY):
        folder = tmp_path / str(rows)
        folder.mkdir()
        command = [sys.executable, "-c", READ, str(write(folder, rows))]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        count, boxes, peak = done.stdout.split()
        assert (int(count), int(boxes)) == (rows, rows)
        peaks.append(float(peak))
    assert peaks[1] - peaks[0] < SLACK_MB, peaks
