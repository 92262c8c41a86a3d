"""Photos by number, wherever they lie: a folder, a curated data set, WebDataset tars.

What is remembered of a photo is a few bytes in an array, so that a set of millions fits into memory
and into every process that prepares pairs.
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
from hbr.curation.manifest import FOLDERS, Manifest, crop_place
from hbr.errors import one_line
from hbr.image import PhotoError, is_photo_name, read_photo
from hbr.image.paths import find_photos, match_files
from hbr.image.pixels import to_8_bits
from hbr.image.reading import named_bytes
from hbr.people.types import N_KEYPOINTS, Person
from hbr.training.config import PhotoSourceConfig, ValidationConfig


class Photos(Protocol):
    """Photos 0 to n - 1."""

    def __len__(self) -> int:
        """How many there are."""

    def name(self, index: int) -> str:
        """What a photo is called in messages."""

    def open(self, index: int) -> Path | IO[bytes]:
        """Its file.

        Raises:
            OSError: it cannot be read.
        """


def open_photos(config: PhotoSourceConfig | ValidationConfig) -> Photos:
    """The photos that a source names.

    Raises:
        ConfigError: they are not there, or not whole.
    """
    if config.photos is not None:
        return FolderPhotos(config.photos, photo_files(config.photos))
    if config.manifest is not None:
        return curated(config.manifest, config.split)
    assert config.tars is not None
    files = sorted(match_files(config.tars))
    if not files:
        raise ConfigError(f"tars: there is no file {config.tars}")
    return TarPhotos(files)


def read_pixels(photos: Photos, index: int) -> np.ndarray:
    """A photo, upright and in sRGB: uint8 [h, w, 3].

    Raises:
        PhotoError: it cannot be read.
    """
    try:
        return to_8_bits(read_photo(photos.open(index)).pixels)
    except OSError as error:
        raise PhotoError(f"{photos.name(index)}: {error.strerror or error}") from None


def photo_files(folder: Path) -> list[Path]:
    """The photos of a folder and its sub-folders, sorted by name.

    Raises:
        ConfigError: there is no such folder, it cannot be read, or it holds no photo.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder of photos")
    try:
        files = find_photos(folder)
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if not files:
        raise ConfigError(f"{folder} holds no photo")
    return files


class FolderPhotos:
    """Files below a folder.

    Args:
        folder: where they lie.
        files: the files, in order.
    """

    def __init__(self, folder: Path, files: Iterable[Path]) -> None:
        self.folder = folder
        encoded = [os.fsencode(file.relative_to(folder)) for file in files]
        self._names = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._ends)

    def name(self, index: int) -> str:
        """The path of the file."""
        return str(self.open(index))

    def open(self, index: int) -> Path:
        """The path of the file."""
        start = self._ends[index - 1] if index else 0
        name = self._names[start : self._ends[index]]
        return self.folder / os.fsdecode(name)


class CropPhotos:
    """The kept crops of a curated data set, a file each.

    Args:
        folder: `crops` of a run.
        split: which of them.
        ids: [n] uint64.
    """

    def __init__(self, folder: Path, split: str, ids: np.ndarray) -> None:
        self.folder, self.split, self.ids = folder, split, ids
        first = (folder / self._place(0, suffix) for suffix in (".png", ".jpg"))
        self._suffix = next((path.suffix for path in first if path.exists()), ".png")

    def __len__(self) -> int:
        """How many there are."""
        return len(self.ids)

    def name(self, index: int) -> str:
        """The path of the file."""
        return str(self.open(index))

    def open(self, index: int) -> Path:
        """The path of the file."""
        return self.folder / self._place(index, self._suffix)

    def _place(self, index: int, suffix: str) -> str:
        return crop_place(self.split, f"{int(self.ids[index]):016x}", suffix)


class TarPhotos:
    """The photos in WebDataset tars, read from their places; other files in them are passed over.

    The tars are gone through once, when this is made.

    Args:
        tars: uncompressed tars, in order.
    """

    def __init__(self, tars: Sequence[Path]) -> None:
        self.tars = tuple(tars)
        places = [_photos_in(tar) for tar in self.tars]
        # the number of the tar, and where in it the file starts and how long it is
        counts = [len(found) for found in places]
        self._tar = np.repeat(np.arange(len(places), dtype=np.uint32), counts)
        self._at = np.concatenate(places)
        if not len(self._at):
            raise ConfigError(f"tars: there is no photo in {self.tars[0]} and {len(tars) - 1} more")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._at)

    def name(self, index: int) -> str:
        """The tar, and where in it the file starts."""
        return f"{self.tars[self._tar[index]]} at byte {self._at[index, 0]}"

    def open(self, index: int) -> IO[bytes]:
        """Its bytes."""
        start, size = map(int, self._at[index])
        return named_bytes(read_part(self.tars[self._tar[index]], start, size), self.name(index))


class TablePhotos:
    """The column `image` of Parquet files, as `hbr curate` writes it.

    A photo is read with those before it in its row group (of 100), since Parquet has no index of
    rows: tars are faster.

    Args:
        files: in order.
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
                raise ConfigError(f"{path} is no Parquet file: {one_line(error, 150)}") from None
            if "image.bytes" not in [c.path for c in table.schema]:
                raise ConfigError(f"{path} has no column `image` with bytes")
            counts.append(table.metadata.num_rows)
        self._ends = np.cumsum(counts, dtype=np.int64)

    def __len__(self) -> int:
        """How many there are."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def name(self, index: int) -> str:
        """The file, and the row in it."""
        file, row = self._place(index)
        return f"{file}, row {row}"

    def open(self, index: int) -> IO[bytes]:
        """Its bytes."""
        file, row = self._place(index)
        data = image_bytes(read_cell(file, "image", row), file.parent)
        return named_bytes(data or b"", self.name(index))

    def _place(self, index: int) -> tuple[Path, int]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.files[number], index - (int(self._ends[number - 1]) if number else 0)


class CuratedPeople:
    """The person of each kept crop of a split, by the crop's number: box and key points.

    Args:
        path: a data set of `hbr curate`, or the manifest in it.
        split: such as "train".
    """

    _COLUMNS = ("x0", "y0", "x1", "y1", "square_x", "square_y", "square_side")

    def __init__(self, path: Path, split: str) -> None:
        manifest = Manifest(path)
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
        """The people of a crop, in pixels of the square that was cut out."""
        x0, y0, x1, y1, x, y, side = self._places[index].tolist()
        points = None
        if self._points is not None and self._points[index].any():
            found = self._points[index].reshape(N_KEYPOINTS, 3) - (x, y, 0)
            points = tuple((u, v, seen) for u, v, seen in found.tolist())
        size = (int(side), int(side))
        return (Person(size, (x0 - x, y0 - y, x1 - x0, y1 - y0), points),)


def curated(path: Path, split: str) -> Photos:
    """The kept crops of one split of a data set that `hbr curate run` or `export` wrote.

    Args:
        path: its folder, or the manifest in it.
        split: such as "train".

    Raises:
        ConfigError: there is no such data set or split, or its crops are not all there.
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
    folder = manifest.path.parent
    photos: Photos
    if (crops := folder / FOLDERS["folder"]).is_dir():
        return CropPhotos(crops, split, ids)
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
            f"names {len(ids)}; `hbr curate export` writes them anew"
        )
    return photos


def _photos_in(tar: Path) -> np.ndarray:
    """Where the photos of a tar lie: [n, 2] int64, first byte and size."""
    if tar.name.lower().endswith(COMPRESSED):
        raise ConfigError(f"tars: {tar} is compressed; photos are read from their places in a tar")
    found = array("q")
    try:
        for member in tar_members(tar):
            if is_photo_name(member.name):
                found.extend((member.offset_data, member.size))
    except OSError as error:
        raise ConfigError(f"tars: {tar}: {error.strerror or error}") from None
    except tarfile.TarError as error:
        raise ConfigError(
            f"tars: {tar} is cut or no tar ({one_line(error, 150)}); get it anew"
        ) from None
    return np.array(found, dtype=np.int64).reshape(-1, 2)
