"""A study on disk: one SQLite file with the design and the answers, next to the images.

Each answer is committed before it is confirmed, in write-ahead mode with full syncing: what a rater
has seen confirmed is there after a kill and after a power cut. Nothing that leaves here for the
browser names a method, an image or a path: images and trials have random ids.
"""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hbr.config import ConfigError, from_dict, to_dict
from hbr.errors import HbrError
from hbr.evaluation.study.design import SCORES, StudyConfig, assign

VERSION = 1
DATABASE = "study.sqlite"
IMAGES = "images"
CODE = re.compile(r"[a-z2-7]{4}-[a-z2-7]{4}-[a-z2-7]{4}")
# An unfinished rater who was here this recently may still come back and answer the rest.
PATIENCE_S = 24 * 3600

_SCHEMA = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE images (
    id TEXT PRIMARY KEY, role TEXT NOT NULL, method TEXT NOT NULL, stem TEXT NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, sha256 TEXT NOT NULL,
    UNIQUE (role, method, stem)
) STRICT;
CREATE TABLE raters (
    number INTEGER PRIMARY KEY, code TEXT NOT NULL UNIQUE, joined REAL NOT NULL, seen REAL NOT NULL
) STRICT;
CREATE TABLE trials (
    id TEXT PRIMARY KEY, rater INTEGER NOT NULL REFERENCES raters (number),
    position INTEGER NOT NULL, stem TEXT NOT NULL, methods TEXT NOT NULL, repeat_of INTEGER,
    UNIQUE (rater, position)
) STRICT;
CREATE TABLE answers (
    trial TEXT PRIMARY KEY REFERENCES trials (id), value INTEGER NOT NULL, ms INTEGER,
    at REAL NOT NULL, revised INTEGER NOT NULL DEFAULT 0
) STRICT;
"""


class StudyError(HbrError, ValueError):
    """A study cannot be created, opened or continued; the message says what to do."""

    http_status = 409


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """One re-encoded picture of a study: `role` is `method`, `lq` or `hq`; sizes in pixels.

    `sha256` is that of the file that it was made of.
    """

    id: str
    role: str
    method: str
    stem: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the browser gets of a trial, and nothing else.

    Attributes:
        id: of the trial.
        position: from 0.
        images: ids of the image, or of the left and the right one.
        references: `lq`, `hq` → id, as far as the study has them.
        width: of the images, pixels.
        height: of the images, pixels.
        answer: what this rater has answered before, or None.
        ahead: ids of the images of the next trial, to be loaded early.
    """

    id: str
    position: int
    images: tuple[str, ...]
    references: Mapping[str, str]
    width: int
    height: int
    answer: int | None
    ahead: tuple[str, ...]


@dataclass(frozen=True)
class RaterPlace:
    """Where a rater is: `answered` of `total` trials, and the `trial` to show, None at the end."""

    answered: int
    total: int
    trial: Shown | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer. `value` is the score, or 0 for the left and 1 for the right of `methods`.

    `repeat_of` is the position of the trial that this one repeated, or None.
    """

    rater: int
    position: int
    stem: str
    methods: tuple[str, ...]
    value: int
    ms: int | None
    at: float
    repeat_of: int | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study that is there, opened by `Study.open`; safe to use from several threads."""

    folder: Path
    config: StudyConfig
    methods: tuple[str, ...]
    stems: tuple[str, ...]
    facts: Mapping[str, Any]
    _images: Mapping[tuple[str, str, str], StoredImage] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> Study:
        """Open the study in `folder`.

        Raises:
            StudyError: there is none, or it is damaged or of another version.
        """
        folder = Path(folder)
        path = folder / DATABASE
        if not path.is_file():
            raise StudyError(f"{folder} holds no study; hbr study new makes one")
        try:
            with _connected(path) as db:
                facts = {k: json.loads(v) for k, v in db.execute("SELECT * FROM study")}
                pictures = db.execute("SELECT * FROM images")
                pictures.row_factory = sqlite3.Row
                rows = [StoredImage(**row) for row in pictures]
            version = facts.pop("version")
            config = from_dict(StudyConfig, facts.pop("config"))
            methods, stems = tuple(facts.pop("methods")), tuple(facts.pop("stems"))
        except (sqlite3.Error, KeyError, json.JSONDecodeError, ConfigError) as error:
            raise StudyError(f"{path} is not a study, or is damaged: {error}") from None
        if version != VERSION:
            raise StudyError(f"{path} is a study of version {version}; this hbr reads {VERSION}")
        images = {(row.role, row.method, row.stem): row for row in rows}
        return cls(
            folder=folder, config=config, methods=methods, stems=stems, facts=facts, _images=images
        )

    def image_path(self, image: str) -> Path | None:
        """The file of an image id, None if the study has no such image."""
        known = any(row.id == image for row in self._images.values())
        return self.folder / IMAGES / f"{image}.png" if known else None

    def join(self, code: str) -> int:
        """Let the rater of this code in, new or come back; gives the rater's number.

        Raises:
            StudyError: the code does not look like one.
        """
        if not CODE.fullmatch(code):
            raise StudyError(
                f"{code[:40]!r} is not a code of a rater; they look like abcd-efgh-2345"
            )
        with self._writing() as db:
            now = time.time()
            db.execute("UPDATE raters SET seen = ? WHERE code = ?", (now, code))
            found = db.execute("SELECT number FROM raters WHERE code = ?", (code,)).fetchone()
            if found:
                return int(found[0])
            number = db.execute("SELECT coalesce(max(number) + 1, 0) FROM raters").fetchone()[0]
            trials = assign(self.config, self.stems, self.methods, self._counts(db, now), number)
            db.execute("INSERT INTO raters VALUES (?, ?, ?, ?)", (number, code, now, now))
            rows = [
                (secrets.token_hex(8), number, i, t.stem, json.dumps(t.methods), t.repeat_of)
                for i, t in enumerate(trials)
            ]
            db.executemany("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?)", rows)
            return int(number)

    def place(self, code: str, position: int | None = None) -> RaterPlace:
        """Where the rater is; with `position`, an earlier trial of theirs to look at again.

        Raises:
            StudyError: no rater has this code.
        """
        with _connected(self.folder / DATABASE) as db:
            trials = db.execute(
                "SELECT t.id, t.position, t.stem, t.methods, a.value FROM trials t"
                " JOIN raters r ON r.number = t.rater LEFT JOIN answers a ON a.trial = t.id"
                " WHERE r.code = ? ORDER BY t.position",
                (code,),
            ).fetchall()
        if not trials:
            raise StudyError("no rater has this code; start again")
        open_ones = [row[1] for row in trials if row[4] is None]
        first_open = open_ones[0] if open_ones else len(trials)
        at = first_open if position is None else max(0, min(position, first_open))
        shown = self._shown(trials, at) if at < len(trials) else None
        return RaterPlace(len(trials) - len(open_ones), len(trials), shown)

    def answer(self, code: str, trial: str, value: int, ms: int | None = None) -> None:
        """Take an answer; the same again changes nothing, another one replaces it.

        `value` is 0 to 5, or 0 for left and 1 for right; `ms` counts from the sight of the images.

        Raises:
            StudyError: the trial is not this rater's, or the value is not one of the study's.
        """
        allowed = SCORES if self.config.kind == "scores" else range(2)
        if value not in allowed:
            raise StudyError(f"the answer is {value}; it must be 0 to {allowed[-1]}")
        with self._writing() as db:
            own = db.execute(
                "SELECT r.number FROM trials t JOIN raters r ON r.number = t.rater"
                " WHERE t.id = ? AND r.code = ?",
                (trial, code),
            ).fetchone()
            if own is None:
                raise StudyError("this rater has no such trial")
            now = time.time()
            db.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, 0) ON CONFLICT (trial) DO UPDATE SET"
                " value = excluded.value, ms = excluded.ms, at = excluded.at,"
                " revised = revised + 1 WHERE value != excluded.value",
                (trial, value, ms, now),
            )
            db.execute("UPDATE raters SET seen = ? WHERE number = ?", (now, own[0]))

    def answers(self) -> list[Answer]:
        """Every answer so far, by rater and position."""
        with _connected(self.folder / DATABASE) as db:
            rows = db.execute(
                "SELECT t.rater, t.position, t.stem, t.methods, a.value, a.ms, a.at, t.repeat_of"
                " FROM answers a JOIN trials t ON t.id = a.trial ORDER BY t.rater, t.position"
            )
            rows.row_factory = sqlite3.Row
            return [Answer(**{**row, "methods": tuple(json.loads(row["methods"]))}) for row in rows]

    def raters(self) -> dict[int, tuple[str, int, int]]:
        """Number → (code, trials answered, trials in all)."""
        with _connected(self.folder / DATABASE) as db:
            rows = db.execute(
                "SELECT r.number, r.code, count(a.trial), count(t.id) FROM raters r"
                " LEFT JOIN trials t ON t.rater = r.number LEFT JOIN answers a ON a.trial = t.id"
                " GROUP BY r.number ORDER BY r.number"
            ).fetchall()
        return {number: (code, answered, total) for number, code, answered, total in rows}

    def _shown(self, trials: list[tuple[Any, ...]], at: int) -> Shown:
        ident, position, stem, methods, value = trials[at]
        images = [self._images["method", m, stem] for m in json.loads(methods)]
        ahead: tuple[str, ...] = ()
        if at + 1 < len(trials):
            _, _, coming, names, _ = trials[at + 1]
            ahead = tuple(self._images["method", m, coming].id for m in json.loads(names))
        references = {
            role: self._images[role, "", stem].id
            for role in ("lq", "hq")
            if (role, "", stem) in self._images
        }
        return Shown(
            id=ident,
            position=position,
            images=tuple(image.id for image in images),
            references=references,
            width=images[0].width,
            height=images[0].height,
            answer=value,
            ahead=ahead,
        )

    def _counts(self, db: sqlite3.Connection, now: float) -> Counter[tuple[str, tuple[str, ...]]]:
        """How often each cell was shown: answered, or open at a rater who may still come back."""
        rows = db.execute(
            "SELECT t.stem, t.methods, count(*) FROM trials t JOIN raters r ON r.number = t.rater"
            " LEFT JOIN answers a ON a.trial = t.id"
            " WHERE t.repeat_of IS NULL AND (a.trial IS NOT NULL OR r.seen > ?)"
            " GROUP BY t.stem, t.methods",
            (now - PATIENCE_S,),
        )
        return Counter({(stem, tuple(json.loads(m))): times for stem, m, times in rows})

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """An immediate transaction, so that two writers wait for each other."""
        with _connected(self.folder / DATABASE) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def write_database(
    path: Path,
    config: StudyConfig,
    methods: tuple[str, ...],
    stems: tuple[str, ...],
    facts: Mapping[str, Any],
    images: list[StoredImage],
) -> None:
    """Make the SQLite file of a new study, without raters."""
    values = {
        "version": VERSION,
        "config": to_dict(config),
        "methods": methods,
        "stems": stems,
        **facts,
    }
    with _connected(path) as db:
        db.executescript(_SCHEMA)
        db.execute("BEGIN")
        db.executemany(
            "INSERT INTO study VALUES (?, ?)", [(k, json.dumps(v)) for k, v in values.items()]
        )
        rows = [(i.id, i.role, i.method, i.stem, i.width, i.height, i.sha256) for i in images]
        db.executemany("INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("COMMIT")


@contextmanager
def _connected(path: Path) -> Iterator[sqlite3.Connection]:
    # autocommit: transactions are begun and ended by hand
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        yield db
    finally:
        db.close()
