"""What is different between two runs: settings, and crop by crop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hbr.config import to_dict
from hbr.curation.record import Record
from hbr.curation.runs.run_folder import RunFolder

ChangeKind = Literal["gained", "lost", "changed", "other-reason"]

# What may be different in a crop that both runs keep.
_WATCHED = ("crop_sha256", "square", "split", "scores", "licence")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One row that is not the same in both runs.

    Attributes:
        kind: `gained` and `lost` are of the kept crops; `changed` is kept by both, but not the
            same; `other-reason` is kept by neither.
        id: of the row.
        source, key: its photo.
        before, after: its state in each run: `kept`, a reason, or `not there`.
        detail: what is different.
    """

    kind: ChangeKind
    id: str
    source: str
    key: str
    before: str
    after: str
    detail: str


@dataclass(kw_only=True)
class DiffTotals:
    """The totals of all changes.

    Attributes:
        rows, kept: of the one and of the other run.
        kept_by_both: crops, changed or not.
        kinds: kind → rows.
        ways: (before, after) → rows whose state differs.
    """

    rows: tuple[int, int] = (0, 0)
    kept: tuple[int, int] = (0, 0)
    kept_by_both: int = 0
    kinds: Counter[ChangeKind] = field(default_factory=Counter)
    ways: Counter[tuple[str, str]] = field(default_factory=Counter)


def compare_settings(one: RunFolder, other: RunFolder) -> dict[str, tuple[Any, Any]]:
    """Dotted name → its value in either run, of all settings that are not the same."""
    a, b = (_flat(_settings(run)) for run in (one, other))
    names = [*a, *(name for name in b if name not in a)]
    return {n: (a.get(n), b.get(n)) for n in names if a.get(n) != b.get(n)}


def compare_rows(one: RunFolder, other: RunFolder, totals: DiffTotals) -> Iterator[Change]:
    """Every row that is not the same, in the order of the ids; both are read side by side.

    In a run that has not finished, what no stage stopped so far counts as kept.

    `totals` are counted on the way, and complete at the end.
    """
    for a, b in _pairs(one.rows(), other.rows()):
        totals.rows = (totals.rows[0] + (a is not None), totals.rows[1] + (b is not None))
        before, after = _place(a), _place(b)
        kept = (before == "kept", after == "kept")
        totals.kept = (totals.kept[0] + kept[0], totals.kept[1] + kept[1])
        totals.kept_by_both += all(kept)
        detail = _different(a, b) if a is not None and b is not None and all(kept) else ""
        if before == after and not detail:
            continue
        if before != after:
            totals.ways[before, after] += 1
        kind: ChangeKind = "other-reason"
        if all(kept):
            kind = "changed"
        elif any(kept):
            kind = "gained" if kept[1] else "lost"
        totals.kinds[kind] += 1
        row = b or a
        assert row is not None
        yield Change(
            kind=kind,
            id=row.id,
            source=row.source,
            key=row.key,
            before=before,
            after=after,
            detail=detail or _why(a, b, kind),
        )


def _pairs(
    one: Iterator[Record], other: Iterator[Record]
) -> Iterator[tuple[Record | None, Record | None]]:
    """Rows of the same id together; both come in the order of their ids."""
    a, b = next(one, None), next(other, None)
    while a is not None or b is not None:
        if b is None or (a is not None and a.id < b.id):
            yield a, None
            a = next(one, None)
        elif a is None or b.id < a.id:
            yield None, b
            b = next(other, None)
        else:
            yield a, b
            a, b = next(one, None), next(other, None)


def _place(record: Record | None) -> str:
    if record is None:
        return "not there"
    return record.reason or "kept"


def _why(a: Record | None, b: Record | None, kind: ChangeKind) -> str:
    """The numbers that stopped it, in the run that did."""
    first, then = (a, b) if kind == "gained" else (b, a)
    return (first and first.detail) or (then and then.detail) or ""


def _different(a: Record, b: Record) -> str:
    """What is not the same in two rows that are kept."""
    said = []
    for name in _WATCHED:
        before, after = getattr(a, name), getattr(b, name)
        if before == after or (name == "split" and None in (before, after)):  # not finished
            continue
        if name == "scores":
            names = sorted({*before, *after})
            moved = [n for n in names if before.get(n) != after.get(n)]
            said += [f"{n} {_short(before.get(n))} → {_short(after.get(n))}" for n in moved]
        elif name == "crop_sha256":
            said.append("other pixels")
        else:
            said.append(f"{name} {before} → {after}")
    return ", ".join(said)


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _settings(run: RunFolder) -> Mapping[str, Any]:
    about = dict(run.about)
    if run.config is not None:
        about["sources"] = to_dict(run.config)["sources"]
    return about


def _flat(value: Any, where: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        out: dict[str, Any] = {}
        for key, inner in value.items():
            out.update(_flat(inner, f"{where}.{key}" if where else str(key)))
        return out
    if isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        out = {}
        for i, inner in enumerate(value):
            out.update(_flat(inner, f"{where}[{inner.get('name') or i}]"))
        return out
    return {where: value}
