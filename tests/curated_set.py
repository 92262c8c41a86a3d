"""A small data set as `hbr curate` leaves it."""

import json
from pathlib import Path

from hbr.config import from_dict
from hbr.curation.config import CurationConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.runs.run import curate


def curated_set(shared: Path, out: Path, edge: int = 128, form: str = "png") -> Path:
    """The crops of twelve photos of coco-cc, as files, tars and tables; parts train and val."""
    folder = shared / "photos/coco-cc"
    coco = json.loads((folder / "instances.json").read_text())
    images = coco["images"][:12]
    ids = {image["id"] for image in images}
    few = {**coco, "images": images}
    few["annotations"] = [a for a in coco["annotations"] if a["image_id"] in ids]
    annotations = out.with_suffix(".json")
    annotations.write_text(json.dumps(few))
    source = {"kind": "coco", "annotations": str(annotations), "images": str(folder / "images")}
    values = {
        "name": "few",
        "sources": [source],
        "size": {"longer": 128},
        "crop": {"edge": edge},
        "quality": {"metrics": []},
        "splits": {"parts": {"train": 0.7, "val": 0.3}},
        "output": {"kinds": ["folder", "webdataset", "parquet"], "shard": 3, "format": form},
    }
    curate(from_dict(CurationConfig, values), out, engine=LocalEngine(0))
    return out
