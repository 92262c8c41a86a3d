"""Sources as plain data, as YAML names them; `kind` says which."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hbr.config import check
from hbr.curation.sources.row_reader import BoxForm
from hbr.curation.sources.wider import WiderLayout


@dataclass(frozen=True, kw_only=True)
class _Named:
    """What all sources have.

    Attributes:
        name: unique in a run; empty takes it from the path.
        labels: a YAML file like `labels.yaml`, whose labels are added.
        people: further labels that name a person.
        grid: which grid of pixels boxes refer to in photos that EXIF turns, where the size that the
            annotations state does not tell: "stored", "upright", or "auto", which is upright for
            YOLO, as its tools read photos, and stored for all others.
        test_only: its photos are for test sets: `splits.fixed` puts them into a split outside
            `splits.parts`, "test" if it does not name the source. A training that reads the run by
            its manifest refuses that split.
    """

    name: str = ""
    labels: Path | None = None
    people: tuple[str, ...] = ()
    grid: Literal["auto", "stored", "upright"] = "auto"
    test_only: bool = False

    def __post_init__(self) -> None:
        ok = re.fullmatch(r"[^/\\\0]*", self.name) is not None
        check(ok, "name", self.name, "without slashes")


@dataclass(frozen=True, kw_only=True)
class CocoConfig(_Named):
    """COCO, Objects365 and other files in their format: see `coco`.

    Attributes:
        annotations: the JSON file.
        images: the folder of images; None for the nearest that holds them.
    """

    annotations: Path
    images: Path | None = None
    kind: Literal["coco", "objects365"] = "coco"


@dataclass(frozen=True, kw_only=True)
class Objects365Config(CocoConfig):
    """Objects365: COCO's format with its own vocabulary."""

    kind: Literal["coco", "objects365"] = "objects365"


@dataclass(frozen=True, kw_only=True)
class OpenImagesConfig(_Named):
    """Open Images: see `openimages`.

    Attributes:
        annotations: the folder of CSV files.
        images: the folder of images; None for the nearest.
        unlabelled: also the images that no file of boxes names.
    """

    annotations: Path
    images: Path | None = None
    unlabelled: bool = False
    kind: Literal["openimages"] = "openimages"


@dataclass(frozen=True, kw_only=True)
class CrowdHumanConfig(_Named):
    """CrowdHuman: see `odgt`.

    Attributes:
        annotations: the `.odgt` file.
        images: the folder of images; None for the nearest.
    """

    annotations: Path
    images: Path | None = None
    kind: Literal["crowdhuman"] = "crowdhuman"


@dataclass(frozen=True, kw_only=True)
class VocConfig(_Named):
    """Pascal VOC: see `voc`.

    Attributes:
        annotations: the folder of XML files.
        images: the folder of images; None for the nearest.
        subset: a list of `ImageSets/Main`.
        one_based: pixels are counted from 1.
    """

    annotations: Path
    images: Path | None = None
    subset: Path | None = None
    one_based: bool = True
    kind: Literal["voc"] = "voc"


@dataclass(frozen=True, kw_only=True)
class WiderConfig(_Named):
    """WIDER FACE, WIDER Pedestrian, WiderPerson: see `wider`.

    Attributes:
        annotations: the list; for `person` the folder of lists.
        images: the folder of images; None for the nearest.
        layout: which of the three.
    """

    annotations: Path
    layout: WiderLayout
    images: Path | None = None
    kind: Literal["wider"] = "wider"


@dataclass(frozen=True, kw_only=True)
class YoloConfig(_Named):
    """YOLO: see `yolo`.

    Attributes:
        images: the folder of images.
        annotations: the folder of text files; None for the one called `labels` instead of `images`.
        classes: `data.yaml`, or a file with one name a line; None looks for one nearby.
    """

    images: Path
    annotations: Path | None = None
    classes: Path | None = None
    kind: Literal["yolo"] = "yolo"


@dataclass(frozen=True, kw_only=True)
class _Rows(_Named):
    """How boxes are written in the rows of tables: see `row_reader`.

    Attributes:
        vocabulary: an entry of `labels.yaml`.
        boxes: what the four numbers of `bbox` are.
        normalised: they are parts of width and height.
        classes: names of labels that are numbers.
    """

    vocabulary: str = "free"
    boxes: BoxForm = "xywh"
    normalised: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WebDatasetConfig(_Rows):
    """Tars: see `tars`.

    Attributes:
        path: a tar, a folder of tars, or a pattern with `*` in its last part.
    """

    path: Path
    kind: Literal["webdataset"] = "webdataset"


@dataclass(frozen=True, kw_only=True)
class ParquetConfig(_Rows):
    """Parquet files: see `parquet`.

    Attributes:
        path: a file, a folder of them, or a pattern with `*` in its last part.
        column: the one with the image bytes.
    """

    path: Path
    column: str | None = None
    kind: Literal["parquet"] = "parquet"


@dataclass(frozen=True, kw_only=True)
class HubConfig(_Rows):
    """A data set of the Hugging Face hub: see `hub`.

    Attributes:
        dataset: its name, or a folder.
        config, split, revision: as `datasets.load_dataset` takes them.
        column: the one with the images.
    """

    dataset: str
    config: str = ""
    split: str = "train"
    revision: str = ""
    column: str | None = None
    kind: Literal["hub"] = "hub"


@dataclass(frozen=True, kw_only=True)
class FolderConfig(_Named):
    """Photos without annotations.

    Attributes:
        path: a folder, with all folders in it, or one photo.
        licence, attribution: of all of them.
    """

    path: Path
    licence: str | None = None
    attribution: str | None = None
    kind: Literal["folder"] = "folder"


@dataclass(frozen=True, kw_only=True)
class ShhqConfig(_Named):
    """SHHQ, full-body photos of 1024×512: see `single_person`.

    Attributes:
        path: the folder that holds `no_segment`.
        keypoints: the text file of the 25 key points of OpenPose, if there is one.
    """

    path: Path
    keypoints: Path | None = None
    kind: Literal["shhq"] = "shhq"


@dataclass(frozen=True, kw_only=True)
class DeepFashionConfig(_Named):
    """DeepFashion's In-shop Clothes Retrieval, and Fashion, its form for pose transfer: see
    `single_person`.

    Attributes:
        path: the folder that holds `Eval` and `Img`, or `train.lst`.
        layout: which of the two.
        subset: of the published partition; In-shop's test part is query and gallery.
        keypoints_size: width and height of the photos that the key points of Fashion refer to.
    """

    path: Path
    layout: Literal["inshop", "fashion"] = "inshop"
    subset: Literal["all", "train", "test"] = "all"
    keypoints_size: tuple[int, int] = (176, 256)
    kind: Literal["deepfashion"] = "deepfashion"


@dataclass(frozen=True, kw_only=True)
class Market1501Config(_Named):
    """Market-1501, for tests only: see `single_person`.

    Attributes:
        path: the folder that holds `query` and `bounding_box_test`.
        parts: of the data set: `query`, `test` (the gallery), `train`.
    """

    path: Path
    parts: tuple[Literal["query", "test", "train"], ...] = ("query", "test")
    test_only: bool = True
    kind: Literal["market1501"] = "market1501"

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.test_only, "test_only", self.test_only, "true for Market-1501")
        check(len({*self.parts}) == len(self.parts) > 0, "parts", self.parts, "each named once")


SourceConfig = (
    CocoConfig
    | Objects365Config
    | OpenImagesConfig
    | CrowdHumanConfig
    | VocConfig
    | WiderConfig
    | YoloConfig
    | WebDatasetConfig
    | ParquetConfig
    | HubConfig
    | FolderConfig
    | ShhqConfig
    | DeepFashionConfig
    | Market1501Config
)
