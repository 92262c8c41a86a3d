"""Sources as plain data, as YAML names them; `kind` says which."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hbr.config import check


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
class AnnotatedConfig(_Named):
    """Sources whose annotations name their images.

    Attributes:
        annotations: the file, or the folder of files.
        images: the folder of images; None for the nearest that holds them.
    """

    annotations: Path
    images: Path | None = None


@dataclass(frozen=True, kw_only=True)
class CocoConfig(AnnotatedConfig):
    """COCO, Objects365 and other files in their format: a JSON file; see `coco`."""

    kind: Literal["coco", "objects365"] = "coco"


@dataclass(frozen=True, kw_only=True)
class Objects365Config(CocoConfig):
    """Objects365: COCO's format with its own vocabulary."""

    kind: Literal["coco", "objects365"] = "objects365"


@dataclass(frozen=True, kw_only=True)
class OpenImagesConfig(AnnotatedConfig):
    """Open Images, a folder of CSV files: see `openimages`.

    Attributes:
        unlabelled: also the images that no file of boxes names. Nobody drew boxes there, and few
            downloads hold all nine millions.
    """

    unlabelled: bool = False
    kind: Literal["openimages"] = "openimages"


@dataclass(frozen=True, kw_only=True)
class CrowdHumanConfig(AnnotatedConfig):
    """CrowdHuman, an `.odgt` file: see `odgt`."""

    kind: Literal["crowdhuman"] = "crowdhuman"


@dataclass(frozen=True, kw_only=True)
class VocConfig(AnnotatedConfig):
    """Pascal VOC, a folder of XML files: see `voc`.

    Attributes:
        subset: a file of `ImageSets/Main`: only the images that it lists; a second column of -1
            leaves one out.
        one_based: pixels are counted from 1 and the last is included, as VOC does; False for
            files of other tools that count from 0 to the edge.
    """

    subset: Path | None = None
    one_based: bool = True
    kind: Literal["voc"] = "voc"


@dataclass(frozen=True, kw_only=True)
class WiderConfig(AnnotatedConfig):
    """WIDER FACE, WIDER Pedestrian, a list each; WiderPerson, a folder of lists: see `wider`.

    Attributes:
        layout: which of the three.
    """

    layout: Literal["face", "pedestrian", "person"]
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
class RowsConfig(_Named):
    """How boxes are written in the rows of tables: see `row_reader`.

    Attributes:
        vocabulary: an entry of `labels.yaml`.
        boxes: what the four numbers of `bbox` are: corner and size, two corners, or centre and
            size.
        normalised: they are parts of width and height.
        classes: names of labels that are numbers.
    """

    vocabulary: str = "free"
    boxes: Literal["xywh", "xyxy", "cxcywh"] = "xywh"
    normalised: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WebDatasetConfig(RowsConfig):
    """Tars: see `tars`.

    Attributes:
        path: a tar, a folder of tars, or a pattern with `*` in its last part.
    """

    path: Path
    kind: Literal["webdataset"] = "webdataset"


@dataclass(frozen=True, kw_only=True)
class ParquetConfig(RowsConfig):
    """Parquet files: see `parquet`.

    Attributes:
        path: a file, a folder of them, or a pattern with `*` in its last part.
        column: the one with the image bytes; None for `image`, or the only one that can be it.
    """

    path: Path
    column: str | None = None
    kind: Literal["parquet"] = "parquet"


@dataclass(frozen=True, kw_only=True)
class HubConfig(RowsConfig):
    """A data set of the Hugging Face hub: see `hub`.

    Attributes:
        dataset: its name, or a folder.
        config, split, revision: as `datasets.load_dataset` takes them.
        column: the one with the images; None for `image`, or the only one.
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
