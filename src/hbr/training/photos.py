"""Indexed access to photos in a folder, a curated data set, or WebDataset tars.

Only a few bytes per photo are held in memory, so that every process that prepares pairs can open a
set of millions.
"""

from __future__ import annotations

import os
import tarfile
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from hbr.archives import COMPRESSED, image_bytes, read_cell, read_part, tar_members
from hbr.config import ConfigError
from hbr.curation.manifest import FOLDERS, Manifest, crop_place, crop_suffix, crops_of
from hbr.errors import one_line
from hbr.image import Photo, PhotoError, is_photo_name, read_photo
from hbr.image.paths import match_files
from hbr.image.reading import named_bytes
from hbr.image.search import LeftOut, find_photos
from hbr.people.types import N_KEYPOINTS, Person
from hbr.training.config import PhotoSourceConfig, ValidationConfig


class Photos(Protocol):
    """A sequence of photos, indexed from 0 to n - 1."""

    def __len__(self) -> int:
        """Return the number of photos."""

    def name(self, index: int) -> str:
        """Return the name of a photo, for messages."""

    def open(self, index: int) -> Path | IO[bytes]:
        """Return the path of a photo, or its opened bytes.

        Raises:
            OSError: the photo cannot be read.
        """


def open_photos(config: PhotoSourceConfig | ValidationConfig) -> Photos:
    """Open the photos of a source.

    Raises:
        ConfigError: they are missing or incomplete.
    """
    if config.photos is not None:
        return FolderPhotos(config.photos, photo_files(config.photos))
    if config.manifest is not None:
        photos = curated(config.manifest, config.split)
        if isinstance(config, PhotoSourceConfig):
            _check_trainable(config.manifest, config.split)
        return photos
    assert config.tars is not None
    files = sorted(match_files(config.tars))
    if not files:
        raise ConfigError(f"tars: there is no file {config.tars}")
    return TarPhotos(files)


def read_upright(photos: Photos, index: int) -> Photo:
    """Read a photo, upright and in sRGB, with what its file says of its orientation.

    Raises:
        PhotoError: the photo cannot be read.
    """
    try:
        return read_photo(photos.open(index))
    except OSError as error:
        raise PhotoError(f"{photos.name(index)}: {error.strerror or error}") from None


def photo_files(folder: Path) -> list[Path]:
    """Return the photos of a folder and its sub-folders, sorted by name.

    Raises:
        ConfigError: the folder does not exist, cannot be read, or contains no photos.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    try:
        files = find_photos(folder)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if not files:
        raise ConfigError(f"{folder} contains no photos")
    return files


class FolderPhotos:
    """Files below a folder."""

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self.folder = folder
        encoded = [os.fsencode(file.relative_to(folder)) for file in files]
        self._names = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def name(self, index: int) -> str:
        """Return the path of the file."""
        return str(self.open(index))

    def open(self, index: int) -> Path:
        """Return the path of the file."""
        start = self._ends[index - 1] if index else 0
        name = self._names[start : self._ends[index]]
        return self.folder / os.fsdecode(name)


class CropPhotos:
    """The kept crops of a curated data set, as one file per crop.

    `ids` are uint64 [n], in the order of the photos.
    """

    def __init__(self, folder: Path, split: str, ids: np.ndarray, suffix: str) -> None:
        self.folder, self.split, self.ids, self.suffix = folder, split, ids, suffix

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, index: int) -> str:
        """Return the path of the file."""
        return str(self.open(index))

    def open(self, index: int) -> Path:
        """Return the path of the file."""
        return self.folder / crop_place(self.split, f"{int(self.ids[index]):016x}", self.suffix)


class TarPhotos:
    """The photos in WebDataset tars, read without unpacking; other members are ignored.

    The tars are scanned once, on construction.
    """

    def __init__(self, tars: Sequence[Path]) -> None:
        self.tars = tuple(tars)
        places = [_photos_in(tar) for tar in self.tars]
        # the index of the tar, and offset and size of the photo in it
        counts = [len(found) for found in places]
        self._tar = np.repeat(np.arange(len(places), dtype=np.uint32), counts)
        self._at = np.concatenate(places)
        if not len(self._at):
            more = f" and {len(tars) - 1} more" if tars[1:] else ""
            raise ConfigError(f"tars: there is no photo in {self.tars[0]}{more}")

    def __len__(self) -> int:
        return len(self._at)

    def name(self, index: int) -> str:
        """Return the tar and the offset of the photo in it."""
        return f"{self.tars[self._tar[index]]} at byte {self._at[index, 0]}"

    def open(self, index: int) -> IO[bytes]:
        """Return the bytes of the photo."""
        start, size = map(int, self._at[index])
        return named_bytes(read_part(self.tars[self._tar[index]], start, size), self.name(index))


class TablePhotos:
    """The column `image` of Parquet files, as `hbr curate` writes it.

    Parquet has no row index, so reading a photo also reads those before it in its row group (of
    100); tars are faster.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.files = tuple(files)
        counts = []
        for path in self.files:
            try:
                table = pq.ParquetFile(path)
            except (OSError, pa.ArrowInvalid) as error:
                raise ConfigError(f"{path} is not a Parquet file: {one_line(error, 150)}") from None
            if "image.bytes" not in [c.path for c in table.schema]:
                raise ConfigError(f"{path} has no column `image` with bytes")
            counts.append(table.metadata.num_rows)
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def name(self, index: int) -> str:
        """Return the file and the row in it."""
        file, row = self._place(index)
        return f"{file}, row {row}"

    def open(self, index: int) -> IO[bytes]:
        """Return the bytes of the photo."""
        file, row = self._place(index)
        data = image_bytes(read_cell(file, "image", row), file.parent)
        return named_bytes(data or b"", self.name(index))

    def _place(self, index: int) -> tuple[Path, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.files[number], index - (int(self._ends[number - 1]) if number else 0)


class PackedCrops:
    """The kept crops of a curated data set in tars or tables, by the names of their files.

    `ids` are uint64 [n], in the order in which the tars or tables hold the photos.
    """

    def __init__(
        self, photos: TarPhotos | TablePhotos, split: str, ids: np.ndarray, suffix: str
    ) -> None:
        self.photos, self.split, self.ids, self.suffix = photos, split, ids, suffix

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, index: int) -> str:
        """Return the place of the photo, then its path in a data set of files."""
        path = crop_place(self.split, f"{int(self.ids[index]):016x}", self.suffix)
        return f"{self.photos.name(index)}: {path}"

    def open(self, index: int) -> IO[bytes]:
        """Return the bytes of the photo."""
        return self.photos.open(index)


class CuratedPeople:
    """The person in each kept crop of a split, with box and key points, by index of the crop."""

    _COLUMNS = ("x0", "y0", "x1", "y1", "square_x", "square_y", "square_side")

    def __init__(self, path: Path, split: str) -> None:
        manifest = Manifest(path)
        self._crops = crops_of(manifest.about)
        more = ["keypoints"] if "keypoints" in manifest.names else []
        places, points = [np.zeros((0, 7))], [np.zeros((0, 3 * N_KEYPOINTS), np.float32)]
        for rows in manifest.kept_rows(split, *self._COLUMNS, *more):
            places.append(np.stack([rows[name].to_numpy() for name in self._COLUMNS], axis=1))
            for name in more:
                unknown = [0.0] * 3 * N_KEYPOINTS
                found = [values or unknown for values in rows[name].to_pylist()]
                points.append(np.array(found, np.float32).reshape(-1, 3 * N_KEYPOINTS))
        self._places = np.concatenate(places)  # [n, 7]
        self._points = np.concatenate(points) if more else None  # [n, 51]

    def __getitem__(self, index: int) -> tuple[Person, ...]:
        """Return the people of a crop, in pixels of what was cut out."""
        x0, y0, x1, y1, x, y, side = self._places[index].tolist()
        points = None
        if self._points is not None and self._points[index].any():
            found = self._points[index].reshape(N_KEYPOINTS, 3) - (x, y, 0)
            points = tuple((u, v, seen) for u, v, seen in found.tolist())
        size = (int(side), self._crops.down(int(side)))
        return (Person(size, (x0 - x, y0 - y, x1 - x0, y1 - y0), points),)


def curated(path: Path, split: str) -> Photos:
    """Open the kept crops of one split of a data set from `hbr curate run` or `export`.

    `path` is its folder, or its manifest file.

    Raises:
        ConfigError: the data set or split does not exist, or crops are missing.
    """
    manifest = Manifest(path)
    if not manifest.path.is_file():
        raise ConfigError(f"manifest: there is no {manifest.path}; `hbr curate run` makes one")
    try:
        ids = manifest.kept_ids(split)
    except (OSError, ValueError) as error:
        raise ConfigError(f"manifest: {one_line(error, 150)}") from None
    if not len(ids):
        raise ConfigError(f"manifest: {manifest.path} keeps nothing in its split {split!r}")
    folder, suffix = manifest.path.parent, crop_suffix(manifest.about)
    photos: TarPhotos | TablePhotos
    if (crops := folder / FOLDERS["folder"]).is_dir():
        return CropPhotos(crops, split, ids, suffix)
    if tars := sorted((folder / FOLDERS["webdataset"]).glob(f"{split}-*.tar")):
        photos = TarPhotos(tars)
    elif files := sorted((folder / FOLDERS["parquet"]).glob(f"{split}-*.parquet")):
        photos = TablePhotos(files)
    else:
        places = ", ".join(FOLDERS.values())
        raise ConfigError(
            f"manifest: {folder} holds no crops of the split {split!r} (in {places}); "
            "`hbr curate export` writes them"
        )
    if len(photos) != len(ids):
        raise ConfigError(
            f"manifest: {folder} holds {len(photos)} crops of the split {split!r}, its manifest "
            f"names {len(ids)}; `hbr curate export` writes them again"
        )
    return PackedCrops(photos, split, ids, suffix)


def _check_trainable(path: Path, split: str) -> None:
    """Refuse to train on the split of a source that is for tests only."""
    held = Manifest(path).about.get("test_only", {})
    names = ", ".join(sorted(name for name, of in held.items() if of == split))
    if names:
        raise ConfigError(
            f"manifest: the split {split!r} of {path} holds {names}, for tests only; "
            "train on another split"
        )


def _photos_in(tar: Path) -> np.ndarray:
    """Return offset and size of each photo in a tar: int64 [n, 2]."""
    if tar.name.lower().endswith(COMPRESSED):
        raise ConfigError(f"tars: {tar} is compressed; give uncompressed tars")
    found, left_out = array("q"), LeftOut()
    try:
        for member in tar_members(tar):
            if is_photo_name(member.name):
                found.extend((member.offset_data, member.size))
            else:
                left_out.add_name(f"{tar}: {member.name}")
    except OSError as error:
        raise ConfigError(f"tars: {tar}: {error.strerror or error}") from None
    except tarfile.TarError as error:
        raise ConfigError(
            f"tars: {tar} is truncated or not a tar ({one_line(error, 150)}); get it again"
        ) from None
    left_out.say()
    return np.array(found, dtype=np.int64).reshape(-1, 2)
