"""From plain data to sources; a bare path is enough if its kind can be recognised."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hbr.curation.sources.base import ImageRef, Source, SourceError, SourceImage
from hbr.curation.sources.coco import read_coco
from hbr.curation.sources.configs import (
    AnnotatedConfig,
    CocoConfig,
    CrowdHumanConfig,
    DeepFashionConfig,
    FolderConfig,
    HubConfig,
    Market1501Config,
    Objects365Config,
    OpenImagesConfig,
    ParquetConfig,
    ShhqConfig,
    SourceConfig,
    VocConfig,
    WebDatasetConfig,
    WiderConfig,
    YoloConfig,
)
from hbr.curation.sources.hub import read_hub
from hbr.curation.sources.labels import Vocabulary, load_vocabulary
from hbr.curation.sources.odgt import OdgtReader
from hbr.curation.sources.openimages import read_openimages
from hbr.curation.sources.parquet import read_parquet
from hbr.curation.sources.paths import badly_named, unused, walk
from hbr.curation.sources.row_reader import RowReader
from hbr.curation.sources.single_person import guess, read_single_person
from hbr.curation.sources.tars import TarReader
from hbr.curation.sources.voc import VocReader
from hbr.curation.sources.wider import WiderReader
from hbr.curation.sources.yolo import YoloReader, read_classes
from hbr.image import is_photo_name
from hbr.people.grids import GridName
from hbr.people.values import clean, open_text

HUB = "hf://"
_IMAGES = ("images", "Images", "JPEGImages", "img")
# files by which a folder is recognised, and how many of a kind are examined
_TELLING = (".csv", ".json", ".odgt", ".parquet", ".tar", ".xml")
_MANY = 50
# a source in such a folder is called as the folder above
_SAYS_NOTHING = {"instances", "annotations", "xml", "labels", *map(str.lower, _IMAGES)}


Read = Callable[[], Iterator[SourceImage]]
"""Gives the images of a source, each time from the first."""


@dataclass(frozen=True)
class _Opened:
    """A source, with what is the same for all kinds.

    Attributes:
        name: unique in a run.
        config: which one.
        vocabulary: of its labels.
        read: gives its images.
    """

    name: str
    config: SourceConfig
    vocabulary: Vocabulary
    read: Read

    def __iter__(self) -> Iterator[SourceImage]:
        """The images; then, if no label named a person, a record that says so."""
        # ultralytics reads photos upright
        usual: GridName = "upright" if isinstance(self.config, YoloConfig) else "stored"
        grid = usual if self.config.grid == "auto" else self.config.grid
        try:
            for image in self.read():
                upright = grid != image.grid and image.boxes
                yield dataclasses.replace(image, grid=grid) if upright else image
        except OSError as error:
            where = error.filename or _place(self.config)
            raise SourceError(f"{where}: {error.strerror or error}") from None
        # COCO's reader says so itself: it knows which categories there are before any box
        coco = isinstance(self.config, CocoConfig)
        if not coco and (problem := self.vocabulary.problem):
            yield unused(self.name, "labels", f"{self.name}: {problem}")


def open_source(config: SourceConfig) -> Source:
    """The source that this names; its contents are read on iteration.

    Raises:
        SourceError: it is not there.
        ConfigError: a table of labels cannot be used.
    """
    place = _place(config)
    if clean(place) != place:
        raise SourceError(f"{clean(place)}: the path is not UTF-8; rename it")
    name, vocabulary = config.name or _name_of(place), _vocabulary(config)
    return _Opened(name, config, vocabulary, _open(name, config, vocabulary))


def _vocabulary(config: SourceConfig) -> Vocabulary:
    free = YoloConfig | FolderConfig | ShhqConfig | DeepFashionConfig | Market1501Config
    name = "free" if isinstance(config, free) else getattr(config, "vocabulary", config.kind)
    return load_vocabulary(name, config.labels, config.people)


def _open(name: str, config: SourceConfig, vocabulary: Vocabulary) -> Read:
    match config:
        case AnnotatedConfig():
            return _open_annotated(name, config, vocabulary)
        case YoloConfig():
            return _open_yolo(name, config, vocabulary)
        case FolderConfig():
            if not config.path.exists():
                raise SourceError(f"{config.path}: no such file or folder")
            return partial(_read_folder, name, config, config.path.resolve())
        case ShhqConfig() | DeepFashionConfig() | Market1501Config():
            path = _folder(config.path).resolve()
            return partial(read_single_person, name, dataclasses.replace(config, path=path))
        case WebDatasetConfig():
            rows = RowReader(name, config, vocabulary)
            return TarReader(_files(config.path, "*.tar"), rows).read
        case ParquetConfig():
            files = _files(config.path, "*.parquet")
            return partial(read_parquet, name, config, files, vocabulary)
        case HubConfig():
            folder = Path(config.dataset)
            dataset = str(folder.absolute()) if folder.is_dir() else config.dataset
            return partial(read_hub, name, config, dataset, vocabulary)


def _open_annotated(
    name: str,
    config: CocoConfig | CrowdHumanConfig | OpenImagesConfig | VocConfig | WiderConfig,
    vocabulary: Vocabulary,
) -> Read:
    in_folder = isinstance(config, OpenImagesConfig | VocConfig) or (
        isinstance(config, WiderConfig) and config.layout == "person"
    )
    annotations = (_folder if in_folder else _file)(config.annotations)
    images = _images(config.images, annotations)
    match config:
        case CocoConfig():
            return partial(read_coco, name, config, images, vocabulary)
        case OpenImagesConfig():
            return partial(read_openimages, name, config, images, vocabulary)
        case CrowdHumanConfig():
            return OdgtReader(name, config, images, vocabulary).read
        case VocConfig():
            return VocReader(name, config, images, vocabulary).read
        case WiderConfig():
            return WiderReader(name, config, images, vocabulary).read


def _read_folder(name: str, config: FolderConfig, path: Path) -> Iterator[SourceImage]:
    """The photos below a folder, in the order of their names, or one photo."""
    single = path.is_file()
    folder = path.parent if single else path
    for photo in [path.name] if single else walk(path):
        yield badly_named(name, photo) or SourceImage(
            source=name,
            key=photo,
            ref=ImageRef.file(folder / photo),
            licence=config.licence,
            attribution=config.attribution,
        )


def open_sources(configs: Sequence[SourceConfig]) -> list[Source]:
    """All of these, each with a name of its own.

    Where two would be called the same after their paths, folders before them are added until they
    differ, so that the names do not depend on the order.

    Raises:
        SourceError: one is not there, or two have the same given name, or are the same.
    """
    return list(map(open_source, with_names(configs)))


def with_names(configs: Sequence[SourceConfig]) -> list[SourceConfig]:
    """The same, each with the name that `open_sources` gives it.

    Raises:
        SourceError: two have the same given name, or are the same.
    """
    named = zip(configs, _names(configs), strict=True)
    return [dataclasses.replace(config, name=name) for config, name in named]


def test_only_names(configs: Sequence[SourceConfig]) -> list[str]:
    """The names, as `open_sources` gives them, of the sources that are for tests only."""
    return [config.name for config in with_names(configs) if config.test_only]


def _names(configs: Sequence[SourceConfig]) -> list[str]:
    names = [config.name or _name_of(_place(config)) for config in configs]
    depth = 1
    while doubles := {name for name in names if names.count(name) > 1}:
        depth += 1
        new = [
            _name_of(_place(config), depth) if name in doubles and not config.name else name
            for config, name in zip(configs, names, strict=True)
        ]
        if new == names:
            raise SourceError(f"two sources are called {min(doubles)}; `name` tells them apart")
        names = new
    return names


def guess_source(path: str | Path) -> SourceConfig:
    """What lies at a path, by looking at it: the `-i` of the command line.

    `hf://NAME` is a data set of the hub, followed by `@SPLIT` if it is not `train`. A folder
    without annotations that are known here is a folder of photos.

    Raises:
        SourceError: nothing is there.
    """
    if str(path).startswith(HUB):
        dataset, _, split = str(path)[len(HUB) :].partition("@")
        if not dataset:
            raise SourceError(f"{path} names no data set; {HUB}OWNER/NAME does")
        return HubConfig(dataset=dataset, split=split or "train")
    path = Path(path)
    if path.is_file():
        return _guess_file(path)
    if "*" in path.name:
        kind = ParquetConfig if path.suffix == ".parquet" else WebDatasetConfig
        return kind(path=path)
    if not path.is_dir():
        raise SourceError(f"{path}: no such file or folder")
    return _guess_folder(path)


def _guess_file(path: Path) -> SourceConfig:
    suffix = path.suffix.lower()
    if suffix == ".json":
        objects365 = "objects365" in path.name.lower() or path.name.startswith("zhiyuan_objv2")
        return (Objects365Config if objects365 else CocoConfig)(annotations=path)
    if suffix == ".odgt":
        return CrowdHumanConfig(annotations=path)
    if suffix == ".tar":
        return WebDatasetConfig(path=path)
    if suffix == ".parquet":
        return ParquetConfig(path=path)
    if suffix == ".txt" and "bbx_gt" in path.name:  # the lists of WIDER FACE are called so
        return WiderConfig(annotations=path, layout="face")
    if not is_photo_name(path):
        raise SourceError(f"{path}: neither a photo nor a source that is known by its name")
    return FolderConfig(path=path)


def _guess_folder(path: Path) -> SourceConfig:
    if known := guess(path):
        return known
    found: dict[str, list[Path]] = {suffix: [] for suffix in _TELLING}
    with os.scandir(path) as entries:  # there may be millions of photos
        for entry in entries:
            suffix = Path(entry.name).suffix.lower()
            few = suffix in found and len(found[suffix]) < _MANY
            if few and not entry.name.startswith(".") and entry.is_file():
                found[suffix].append(path / entry.name)
    if any(p.name.endswith("annotations-bbox.csv") for p in found[".csv"]):
        return OpenImagesConfig(annotations=path)
    if found[".tar"]:
        return WebDatasetConfig(path=path)
    if found[".parquet"]:
        return ParquetConfig(path=path)
    if (path / "images").is_dir() and (path / "labels").is_dir() and _nearby_classes(path):
        return YoloConfig(images=path / "images", annotations=path / "labels")
    # as many as that are descriptions of single photos
    few_json = len(found[".json"]) < _MANY
    coco = [p for p in found[".json"] if _looks_like_coco(p)] if few_json else []
    for name, files in (("coco", coco), ("crowdhuman", found[".odgt"])):
        if len(files) > 1:
            names = ", ".join(sorted(p.name for p in files))
            raise SourceError(f"{path} holds several annotation files: name one of {names}")
        if files:
            make = CocoConfig if name == "coco" else CrowdHumanConfig
            return make(annotations=files[0])
    for name in ("Annotations", "annotations", "xml"):
        if next((path / name).glob("*.xml"), None):
            return VocConfig(annotations=path / name)
    return VocConfig(annotations=path) if found[".xml"] else FolderConfig(path=path)


def _looks_like_coco(path: Path) -> bool:
    with open_text(path) as file:
        head = file.read(1 << 16)
    keys = ("images", "annotations", "categories", "licenses")
    return head.lstrip().startswith("{") and any(f'"{key}"' in head for key in keys)


def _open_yolo(name: str, config: YoloConfig, vocabulary: Vocabulary) -> Read:
    images = _folder(config.images).resolve()
    labels = config.annotations
    if labels is None:  # .../images/train → .../labels/train, as ultralytics does it
        parts = list(images.absolute().parts)
        if "images" not in parts:
            raise SourceError(f"{images}: `annotations` must name the folder of text files")
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
        labels = Path(*parts)
    labels = _folder(labels)
    above = [labels, *labels.absolute().parents[:3]]
    classes = config.classes or next(filter(None, map(_nearby_classes, above)), None)
    if classes is None:
        raise SourceError(f"{labels}: no data.yaml nor classes.txt here; `classes` names one")
    names, keypoints = read_classes(classes)
    return YoloReader(
        name=name,
        images=images,
        labels=labels,
        classes=names,
        vocabulary=vocabulary,
        keypoints=keypoints,
    ).read


def _nearby_classes(folder: Path) -> Path | None:
    names = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt", "obj.names")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _file(path: Path) -> Path:
    return _there(path, Path.is_file, "file")


def _folder(path: Path) -> Path:
    return _there(path, Path.is_dir, "folder")


def _there(path: Path, is_it: Callable[[Path], bool], what: str) -> Path:
    if not is_it(path):
        raise SourceError(f"{path}: no such {what}")
    return path


def _files(path: Path, pattern: str) -> tuple[Path, ...]:
    if path.is_file():
        return (path.resolve(),)
    folder, pattern = (path, pattern) if path.is_dir() else (path.parent, path.name)
    found = tuple(sorted(folder.resolve().glob(pattern))) if "*" in pattern else ()
    if not found:
        raise SourceError(f"{path}: no such files")
    return found


def _images(images: Path | None, annotations: Path) -> Path:
    """The folder of images: the given one, or one of a usual name beside the annotations."""
    if images is not None:
        return _folder(images).resolve()
    annotations = annotations.resolve()
    home = annotations if annotations.is_dir() else annotations.parent
    # beside annotations/instances_val2017.json lies val2017
    names = (*_IMAGES, annotations.stem.rpartition("_")[2])
    for folder in (home, home.parent):
        for name in names:
            if (folder / name).is_dir():
                return folder / name
    return home


def _place(config: SourceConfig) -> str:
    for field in ("annotations", "path", "images", "dataset"):
        if (value := getattr(config, field, None)) is not None:
            return value if isinstance(value, str) else str(value.absolute())
    raise AssertionError("every source has a place")


def _name_of(place: str, depth: int = 1) -> str:
    """The last parts of a path as a name: `a/coco/instances.json` → `coco`, or `a-coco`."""
    path = Path(place)
    parts = [part for part in (*path.parts[:-1], path.stem) if part.strip("/\\*")]
    while len(parts) > 1 and parts[-1].lower() in _SAYS_NOTHING:
        parts.pop()
    name = "-".join(parts[-depth:])
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "source"
