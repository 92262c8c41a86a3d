"""Tables on disk for data that does not fit in memory: SQLite's temporary databases.

SQLite keeps a page cache of 2 MB and writes the rest to an unnamed file in `TMPDIR` (or
`SQLITE_TMPDIR`), which is gone when the connection is closed, even after a kill. It takes about 150
bytes for each image and 80 for each box; 3 GB for all of Objects365.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from hbr.curation.sources.base import Box, BoxKind, SourceError

_KINDS: tuple[BoxKind, ...] = ("full", "visible", "head")
_CROWD, _IGNORE, _NORMALISED = 1, 2, 4

Tables = TypeVar("Tables")


@contextlib.contextmanager
def on_disk(make: Callable[[sqlite3.Connection], Tables]) -> Iterator[Tables]:
    """What is made of an empty database on disk, which goes away with the block.

    Raises:
        SourceError: the disk is full, or cannot be written to.
    """
    database = sqlite3.connect("", isolation_level=None)
    try:
        database.execute("PRAGMA journal_mode=OFF")
        database.execute("PRAGMA synchronous=OFF")
        yield make(database)
    except sqlite3.OperationalError as error:
        raise SourceError(f"tables on disk (TMPDIR says where): {error}") from None
    finally:
        database.close()


def in_order(names: Iterable[str]) -> Iterator[str]:
    """The names sorted by code point, each once, however many there are."""
    with on_disk(lambda database: database) as database:
        # as bytes: names on disk need not be UTF-8
        database.execute("CREATE TABLE names (name BLOB PRIMARY KEY) WITHOUT ROWID")
        rows = ((name.encode("utf-8", "surrogateescape"),) for name in names)
        database.executemany("INSERT OR IGNORE INTO names VALUES (?)", rows)
        for (name,) in database.execute("SELECT name FROM names ORDER BY name"):
            yield name.decode("utf-8", "surrogateescape")


class SeenKeys:
    """Which keys have come already."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.execute("CREATE TABLE seen (key TEXT PRIMARY KEY) WITHOUT ROWID")

    def again(self, key: str) -> bool:
        """Whether this key was asked for before."""
        cursor = self._database.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,))
        return cursor.rowcount == 0

    def holds(self, key: str) -> bool:
        """The same without noting it."""
        row = self._database.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone()
        return row is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedImage:
    """What an annotation file states about one image.

    Attributes:
        id: what boxes name it by.
        name: file name, as written there.
        width, height, licence, attribution, rotation: as of `SourceImage`.
        labelled: it was annotated for people.
        boxes: in the order of the file.
        listed: the file lists the image; else only its boxes name it.
        repeated: another image before it had the same file name.
    """

    id: str
    name: str | None = None
    width: int | None = None
    height: int | None = None
    licence: str | None = None
    attribution: str | None = None
    rotation: int = 0
    labelled: bool
    boxes: tuple[Box, ...]
    listed: bool
    repeated: bool = False


class BoxIndex:
    """Images and boxes of an annotation file, in any order, joined on disk."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute(
            "CREATE TABLE images (n INTEGER PRIMARY KEY, id TEXT UNIQUE, name TEXT, width, height,"
            " licence, attribution, rotation, labelled, listed)"
        )
        database.execute(
            "CREATE TABLE boxes (image TEXT, x0, y0, x1, y1, label, kind, score, flags, category,"
            " keypoints, n INTEGER PRIMARY KEY)"
        )

    def add_image(
        self,
        id: str,
        name: str,
        *,
        width: int | None,
        height: int | None,
        licence: str | None,
        attribution: str | None,
    ) -> bool:
        """Add an annotated image; False, and nothing is changed, if its id was added before."""
        row = (id, name, width, height, licence, attribution)
        cursor = self._database.execute(
            "INSERT OR IGNORE INTO images VALUES (NULL,?,?,?,?,?,?,0,1,1)", row
        )
        return cursor.rowcount == 1

    def mark_labelled(self, id: str) -> None:
        """Note that this image, which may not be listed, was annotated for people."""
        self._database.execute(
            "INSERT INTO images VALUES (NULL,?,NULL,NULL,NULL,NULL,NULL,0,1,0)"
            " ON CONFLICT (id) DO UPDATE SET labelled = 1",
            (id,),
        )

    def list_image(
        self, id: str, name: str, *, licence: str | None, attribution: str | None, rotation: int
    ) -> None:
        """Add an image that may not be annotated, or update what the list says of it."""
        self._database.execute(
            "INSERT INTO images VALUES (NULL,?,?,NULL,NULL,?,?,?,0,1)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name, licence = excluded.licence,"
            " attribution = excluded.attribution, rotation = excluded.rotation, listed = 1",
            (id, name, licence, attribution, rotation),
        )

    def add_box(self, image: str, box: Box, category: str | None = None) -> None:
        """Add a box; `category` is for boxes whose label is known only later."""
        flags = _CROWD * box.crowd | _IGNORE * box.ignore | _NORMALISED * box.normalised
        edges = [_storable(edge) for edge in (box.x0, box.y0, box.x1, box.y1)]
        points = None if box.keypoints is None else json.dumps(box.keypoints)
        row = (image, *edges, box.label, _KINDS.index(box.kind), box.score, flags, category, points)
        self._database.execute("INSERT INTO boxes VALUES (?,?,?,?,?,?,?,?,?,?,?,NULL)", row)

    def name_categories(self, kept: Sequence[tuple[str, str, BoxKind, bool, bool]]) -> None:
        """Give the boxes of these categories their label, and forget those of all others.

        `kept` holds category, label and kind, and whether a box is a crowd or to be ignored.
        """
        run = self._database.execute
        run("CREATE TEMP TABLE kept (category TEXT PRIMARY KEY, label, kind, flags)")
        rows = [(c, la, _KINDS.index(k), _CROWD * cr | _IGNORE * ig) for c, la, k, cr, ig in kept]
        self._database.executemany("INSERT OR REPLACE INTO kept VALUES (?,?,?,?)", rows)
        run(
            "DELETE FROM boxes WHERE category IS NOT NULL"
            " AND category NOT IN (SELECT category FROM kept)"
        )
        run(
            "UPDATE boxes SET label = k.label, kind = k.kind, flags = boxes.flags | k.flags"
            " FROM kept k WHERE boxes.category = k.category"
        )

    def names(self) -> Iterator[str]:
        """The file names of the listed images."""
        for (name,) in self._database.execute("SELECT DISTINCT name FROM images WHERE listed"):
            yield name

    def images(self, *, by_id: bool = False) -> Iterator[IndexedImage]:
        """The images in the order of adding or of their ids; then those that only boxes name."""
        run = self._database.execute
        run("CREATE INDEX box_image ON boxes (image)")
        if not by_id:
            run("CREATE INDEX image_name ON images (name)")
        columns = ("id", "name", "width", "height", "licence", "attribution", "rotation")
        query = f"SELECT labelled, listed, n, {', '.join(columns)} FROM images"
        for labelled, listed, n, *values in run(f"{query} ORDER BY {'id' if by_id else 'n'}"):
            stated = dict(zip(columns, values, strict=True))
            yield IndexedImage(
                **stated,
                labelled=bool(labelled),
                boxes=self._boxes(stated["id"]),
                listed=bool(listed),
                repeated=not by_id and n != self._first_of(stated["name"]),
            )
        orphans = (
            "SELECT DISTINCT image FROM boxes WHERE image NOT IN (SELECT id FROM images)"
            " ORDER BY image"
        )
        for (id,) in run(orphans):
            yield IndexedImage(id=id, labelled=True, boxes=self._boxes(id), listed=False)

    def _first_of(self, name: str) -> int:
        row = self._database.execute("SELECT min(n) FROM images WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def _boxes(self, image: str) -> tuple[Box, ...]:
        columns = "x0, y0, x1, y1, label, kind, score, flags, keypoints"
        query = f"SELECT {columns} FROM boxes WHERE image = ? ORDER BY n"
        return tuple(map(_box, self._database.execute(query, (image,))))


def _box(row: tuple[Any, ...]) -> Box:
    *edges, label, kind, score, flags, keypoints = row
    edges = [float("nan") if edge is None else edge for edge in edges]
    crowd, ignore, normalised = (bool(flags & flag) for flag in (_CROWD, _IGNORE, _NORMALISED))
    return Box(
        *edges,
        label=label,
        kind=_KINDS[kind],
        score=score,
        crowd=crowd,
        ignore=ignore,
        normalised=normalised,
        keypoints=None if keypoints is None else tuple(json.loads(keypoints)),
    )


def _storable(edge: float) -> float | None:
    """NaN as None: SQLite has no NaN."""
    return None if edge != edge else float(edge)
