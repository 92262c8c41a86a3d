"""Rows that outlive kills, in files that are only appended to."""

import json
import os
from pathlib import Path

import pytest

import hbr.ledger
from hbr.ledger import Ledger, SharedLedger, read_rows, write_rows

ROWS = [{"name": "ä", "n": 1}, {"name": "b\n", "n": float("inf")}, {"name": "c", "n": [None]}]


def test_rows_come_back_and_at_their_places(tmp_path: Path) -> None:
    for path in (tmp_path / "new" / "file", None):
        with Ledger(path) as ledger:
            places = [ledger.append(row) for row in ROWS[:2]]
            assert ledger.append() == ledger.append(ROWS[2], ROWS[0])
            assert [ledger.read(place) for place in places] == ROWS[:2]
            assert [row for _, row in ledger.rows()] == [*ROWS, ROWS[0]]
            assert [place for place, _ in ledger.rows()][:2] == places
            ledger.append(ROWS[1])  # after reading too, to the end
    assert list(read_rows(tmp_path / "new" / "file")) == [*ROWS, ROWS[0], ROWS[1]]
    assert list(read_rows(tmp_path / "none")) == []


@pytest.mark.parametrize("cut", range(1, 14))
def test_a_torn_line_is_skipped_and_harms_no_other(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "file"
    write_rows(path, ROWS)
    os.truncate(path, path.stat().st_size - cut)
    assert list(read_rows(path)) == ROWS[: 3 if cut == 1 else 2]
    with Ledger(path) as ledger, Ledger(path, read_only=True) as reader:
        ledger.append(ROWS[0])
        assert [row for _, row in reader.rows()] == [*ROWS[: 3 if cut == 1 else 2], ROWS[0]]


def test_lines_of_something_else_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b'[1]\n"text"\n\xff\xfe\n\n' + json.dumps(ROWS[0]).encode() + b"\n")
    assert list(read_rows(path)) == ROWS[:1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").symlink_to("/dev/full")
    with (
        Ledger(tmp_path / "file") as ledger,
        pytest.raises(OSError, match="No space left") as caught,
    ):
        ledger.append(ROWS[0])
    assert caught.value.filename == str(tmp_path / "file")


def test_runs_read_each_others_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hbr.ledger, "LOOK", 0.0)
    (tmp_path / ".x-0-of-2.jsonl").write_text('{"name": "a", "n": 0}\n{"name": "b", "n": 0}\n{"na')
    one, two = SharedLedger(tmp_path, ".x", "-0-of-2"), SharedLedger(tmp_path, ".x", "-1-of-2")
    same = SharedLedger(tmp_path, ".x", "-0-of-2")
    one.add({"name": "a", "n": 1})
    assert (two.find("a"), one.find("a")) == ({"name": "a", "n": 0}, {"name": "a", "n": 1})
    two.add({"name": "c", "n": 2})
    same.add({"name": "d", "n": 3})
    for ledger in (one, two, same):
        ledger.refresh()
        found = [(ledger.find(name) or {}).get("n") for name in "abcde"]
        assert found == [1, 0, 2, 3, None]
        ledger.close()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".x-0-of-2.jsonl", ".x-1-of-2.jsonl"]
    assert [row["name"] for row in read_rows(tmp_path / left[0])] == ["a", "b", "a", "d"]
