"""The passes over the whole set: Eq. 1, near-duplicates, splits; then the manifest.

They stream over the parts. Only what the decisions need stays in memory: some 50 bytes of each row
that came to a crop. What they decide depends on the set alone.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hbr.curation.config import CurationConfig, limits_of
from hbr.curation.manifest import manifest_writer
from hbr.curation.pipeline.sorting import by_id
from hbr.curation.pipeline.stages import duplicates, splits, zscores
from hbr.curation.pipeline.stages.quality import better
from hbr.curation.pipeline.store import Store, TaskSet
from hbr.curation.record import ERRORS, SCORE, Counts, Record, count, from_row
from hbr.files import replacing

_ROWS = 8192  # in a row group of the manifest
_COLUMNS = ("id", "task", "source", "image_sha256", "phash", "reason", "sharpness")


@dataclass(frozen=True, kw_only=True)
class Crops:
    """What the passes know of the rows that came to stage f.

    Attributes:
        ids: [n] uint64, sorted.
        alive: [n] bool, no stage has stopped it.
        scores: metric → [n] float64, NaN where it has none.
        sharpness: [n] float64.
        hashes: [n] uint64, perceptual.
        images: [n] uint64, the first digits of the image's SHA-256.
        sources: [n] index into `names`.
        names: the sources, sorted.
    """

    ids: np.ndarray
    alive: np.ndarray
    scores: Mapping[str, np.ndarray]
    sharpness: np.ndarray
    hashes: np.ndarray
    images: np.ndarray
    sources: np.ndarray
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """What the passes found, for the rows of `Crops`.

    Attributes:
        ids: [n] uint64, sorted.
        z_mean: [n] Eq. 1; NaN where a score is missing.
        in_top: [n] bool.
        place: [n] int64, by `z_mean` from 1; 0 where there is none.
        duplicate_of: [n] uint64, 0 where it is none.
        group: [n] uint64.
        split: [n] index into `splits`, of what no stage has stopped; else 0.
        not_sampled, held_out: [n] bool, what stops at stage i.
        splits: their names.
        kept_places, ranked: how many places Eq. 1 gave, and for how many crops.
        left_out: ids of the crops that a person left out in a review.
    """

    ids: np.ndarray
    z_mean: np.ndarray
    in_top: np.ndarray
    place: np.ndarray
    duplicate_of: np.ndarray
    group: np.ndarray
    split: np.ndarray
    not_sampled: np.ndarray
    held_out: np.ndarray
    splits: tuple[str, ...]
    kept_places: int
    ranked: int
    left_out: frozenset[str] = frozenset()


def gather(store: Store, wanted: TaskSet) -> Crops:
    """Read what the passes need of all rows of the wanted tasks that came to a crop."""
    columns = [*_COLUMNS, *[SCORE + name for name in store.metrics]]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
    names: dict[str, int] = {}
    for _, table in store.tables(columns):
        table = table.filter(table["phash"].is_valid())
        table = table.filter(wanted.holds(_hex(table["task"])))
        for name in ("id", "phash"):
            parts[name].append(_hex(table[name]))
        parts["image_sha256"].append(_hex(table["image_sha256"]))
        parts["reason"].append(~np.asarray(table["reason"].is_valid()))
        codes = [names.setdefault(name, len(names)) for name in table["source"].to_pylist()]
        parts["source"].append(np.array(codes, np.int32))
        for name in ("sharpness", *[SCORE + metric for metric in store.metrics]):
            parts[name].append(table[name].to_numpy().astype(np.float64))
    joined = {k: np.concatenate(v) if v else np.empty(0) for k, v in parts.items()}
    order = np.argsort(joined["id"], kind="stable")
    ordered = sorted(names)
    code = np.array([ordered.index(name) for name in names], np.int32)
    sources = joined["source"].astype(np.int32)[order]
    return Crops(
        ids=joined["id"].astype(np.uint64)[order],
        alive=joined["reason"].astype(bool)[order],
        scores={metric: joined[SCORE + metric][order] for metric in store.metrics},
        sharpness=joined["sharpness"][order],
        hashes=joined["phash"].astype(np.uint64)[order],
        images=joined["image_sha256"].astype(np.uint64)[order],
        sources=code[sources] if len(code) else sources,
        names=tuple(ordered),
    )


def count_errors(store: Store, wanted: TaskSet) -> int:
    """Images of the wanted tasks that could not be used."""
    errors = 0
    for _, table in store.tables(["task", "reason"]):
        table = table.filter(wanted.holds(_hex(table["task"])))
        errors += sum(reason in ERRORS for reason in table["reason"].to_pylist())
    return errors


def _hex(column: Any) -> np.ndarray:
    """[n] uint64 of the first 16 hexadecimal digits of texts."""
    return np.array([int(text[:16], 16) for text in column.to_pylist()], np.uint64)


def decide(
    crops: Crops, config: CurationConfig, left_out: frozenset[str] = frozenset()
) -> Decisions:
    """Stages g, h and i; `left_out` are ids of crops that a person left out in a review."""
    held_out = [i for i, name in enumerate(crops.names) if name in config.splits.held_out]
    apart = np.isin(crops.sources, held_out)  # [n] bool
    z_mean, in_top, places = _eq1(crops, ~apart, config)
    n = len(crops.ids)
    ranked = np.lexsort((crops.ids, -np.nan_to_num(z_mean, nan=-np.inf)))
    place = np.zeros(n, np.int64)
    place[ranked] = np.arange(1, n + 1)
    place[np.isnan(z_mean)] = 0
    left = np.flatnonzero(crops.alive & in_top)
    lost_to = _duplicates(crops, z_mean, left, apart, config)
    unwanted = _not_sampled(crops, left[lost_to[left] < 0], config)
    group, split = np.zeros(n, np.uint64), np.zeros(n, np.int64)
    different = np.unique(crops.hashes[left])
    near = (different[at] for at in duplicates.near_blocks(different, config.duplicates.radius))
    group[left] = splits.share_group(crops.images[left], crops.hashes[left], near)
    # crops of a test set that are not taken keep no others from training
    members = left[~(unwanted[left] | (apart[left] & (lost_to[left] >= 0)))]
    split[members], names = splits.assign(
        group[members], crops.sources[members], crops.names, config.splits
    )
    tested = np.isin(group, group[members][apart[members]])
    return Decisions(
        ids=crops.ids,
        z_mean=z_mean,
        in_top=in_top,
        place=place,
        duplicate_of=np.where(lost_to >= 0, crops.ids[lost_to], 0).astype(np.uint64),
        group=group,
        split=split,
        not_sampled=unwanted,
        held_out=tested & ~apart,
        splits=names,
        kept_places=places,
        ranked=n - int(apart.sum()),
        left_out=left_out,
    )


def _eq1(
    crops: Crops, within: np.ndarray, config: CurationConfig
) -> tuple[np.ndarray, np.ndarray, int]:
    """z̄, which crops are in the top, and the number of places; crops not within pass unranked."""
    scores = {
        name: values[within]
        for name, values in crops.scores.items()
        if config.quality.eq1 is None or name in config.quality.eq1
    }
    n, count = len(crops.ids), int(within.sum())
    z_mean, in_top = np.full(n, np.nan), np.ones(n, bool)
    if not scores:
        return z_mean, in_top, count
    z_mean[within] = zscores.z_means(scores, {name: better(name) for name in scores})
    entered = ~np.isnan(z_mean)
    if not config.quality.all_scores:
        entered &= crops.alive
    places = zscores.quota(config.quality.top, count)
    in_top[within] = False
    in_top[entered] = zscores.best(crops.ids[entered], z_mean[entered], places)
    return z_mean, in_top, places


def _duplicates(
    crops: Crops, z_mean: np.ndarray, left: np.ndarray, apart: np.ndarray, config: CurationConfig
) -> np.ndarray:
    """[n] the better crop that each nearly repeats, or -1; a test set is looked at by itself."""
    lost_to = np.full(len(crops.ids), -1, np.int64)
    quality = np.where(np.isnan(z_mean), 0, z_mean)
    order = np.lexsort((crops.ids[left], -crops.sharpness[left], -quality[left]))
    rank = np.empty(len(left), np.int64)
    rank[order] = np.arange(len(left))
    across = [left[~apart[left]], left[apart[left]]]
    by_source = [left[crops.sources[left] == i] for i in range(len(crops.names))]
    for members in across if config.duplicates.across else by_source:
        inside = np.searchsorted(left, members)
        lost = duplicates.duplicate_of(
            crops.hashes[members], rank[inside], config.duplicates.radius
        )
        lost_to[members] = np.where(lost >= 0, members[lost], -1)
    return lost_to


def _not_sampled(crops: Crops, kept: np.ndarray, config: CurationConfig) -> np.ndarray:
    """[n] bool: of the kept crops those beyond the count of their source."""
    unwanted = np.zeros(len(crops.ids), bool)
    for i, name in enumerate(crops.names):
        count = limits_of(config, name).count
        members = kept[crops.sources[kept] == i]
        if count is not None and len(members) > count:
            drawn = splits.sample(crops.ids[members], count, config.splits.seed)
            unwanted[members[~drawn]] = True
    return unwanted


def settle(record: Record, decisions: Decisions) -> Record:
    """A row after stages g, h and i."""
    if record.phash is None:
        return record
    i = int(np.searchsorted(decisions.ids, np.uint64(int(record.id, 16))))
    z_mean = float(decisions.z_mean[i])
    if np.isfinite(z_mean):
        record = dataclasses.replace(record, z_mean=z_mean)
    if not record.alive:
        return record
    if not decisions.in_top[i]:
        detail = f"mean z-score {z_mean:.4f} is place {decisions.place[i]}; "
        detail += f"{decisions.kept_places} of {decisions.ranked} are kept"
        return record.stopped("eq1", "not-in-top", detail)
    record = record.passed("eq1", group=f"{int(decisions.group[i]):016x}")
    if other := int(decisions.duplicate_of[i]):
        detail = f"looks nearly like {other:016x}"
        return record.stopped("duplicates", "near-duplicate", detail, duplicate_of=f"{other:016x}")
    if decisions.not_sampled[i]:
        detail = f"not among those drawn of {record.source}"
        return record.stopped("splits", "not-sampled", detail)
    if decisions.held_out[i]:
        detail = f"group {record.group} has crops of a test set"
        return record.stopped("splits", "held-out", detail)
    if record.id in decisions.left_out:
        return record.stopped("splits", "reviewed", "left out in the review")
    return record.passed("splits", split=decisions.splits[decisions.split[i]])


@dataclass(kw_only=True)
class ManifestTotals:
    """What the last pass counted.

    Attributes:
        counts: (stage, reason) → rows.
        images: source → ids of the images.
        rows: source → rows.
        kept: (source, split) → crops.
        licences: licence → kept crops; an empty one where none is stated.
        scores: metric → moments over the kept crops that are not of a test set.
        persons: people in the crop, over the kept crops.
        tags: tag → kept crops that have it.
        held_out: the sources of a test set.
    """

    held_out: frozenset[str] = frozenset()
    counts: Counts = field(default_factory=Counter)
    images: dict[str, TaskSet] = field(default_factory=dict)
    rows: Counter[str] = field(default_factory=Counter)
    kept: Counter[tuple[str, str]] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    scores: dict[str, zscores.ExactMoments] = field(default_factory=dict)
    persons: zscores.ExactMoments = field(default_factory=zscores.ExactMoments)
    tags: Counter[str] = field(default_factory=Counter)

    def add(self, records: Sequence[Record]) -> None:
        """Count some final rows."""
        self.counts += count(records)
        kept = [record for record in records if record.alive]
        self.rows.update(record.source for record in records)
        for record in records:
            self.images.setdefault(record.source, TaskSet()).add(int(record.image_id, 16))
        self.kept.update((record.source, record.split or "") for record in kept)
        self.licences.update(record.licence or "" for record in kept)
        self.tags.update(tag for record in kept for tag in record.tags or ())
        people = [r.crop_persons for r in kept if r.crop_persons is not None]
        self.persons.add(np.array(people, np.float64))
        kept = [record for record in kept if record.source not in self.held_out]
        for name in sorted({name for record in kept for name in record.scores}):
            values = [record.scores[name] for record in kept if name in record.scores]
            self.scores.setdefault(name, zscores.ExactMoments()).add(np.array(values))


def write_manifest(
    store: Store,
    wanted: TaskSet,
    decisions: Decisions,
    path: Path,
    about: dict[str, Any],
    report: Callable[[int], None],
    held_out: frozenset[str] = frozenset(),
) -> ManifestTotals:
    """Write all rows of the wanted tasks, with their decisions, in the order of their ids.

    `wanted` are the tasks of this run; parts may hold those of other sources too. `about` goes into
    the metadata; `held_out` are the sources of a test set.
    """
    tally, written = ManifestTotals(held_out=held_out), 0
    parts = (table.filter(wanted.holds(_hex(table["task"]))) for _, table in store.tables())
    ordered = by_id(parts, store.folder / "sort")
    keypoints = _have_keypoints(store, wanted)
    with (
        replacing(path) as part,
        manifest_writer(part, store.metrics, about, keypoints=keypoints) as write,
    ):
        for rows in _groups(ordered):
            records = [settle(from_row(row), decisions) for row in rows]
            write(records)
            tally.add(records)
            written += len(records)
            report(written)
    return tally


def _have_keypoints(store: Store, wanted: TaskSet) -> bool:
    """Whether a row of the wanted tasks has key points."""
    tables = (table for _, table in store.tables(["task", "keypoints"]))
    found = (table.filter(table["keypoints"].is_valid()) for table in tables)
    return any(wanted.holds(_hex(table["task"])).any() for table in found if len(table))


def _groups(tables: Iterator[pa.Table]) -> Iterator[list[dict[str, Any]]]:
    """Rows in groups of equal size, wherever tables end: row groups depend on the rows alone."""
    batches = (b for table in tables for b in table.to_batches(max_chunksize=_ROWS))
    rows = (row for batch in batches for row in batch.to_pylist())
    while group := list(itertools.islice(rows, _ROWS)):
        yield group
