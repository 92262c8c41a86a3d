"""What is in tars and Parquet files, read from where it lies."""

import io
import tarfile
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbr.archives import image_bytes, read_cell, read_part, tar_members

FILES = {"a.txt": b"one", "folder/b.bin": b"", "c": bytes(range(256)) * 8}


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    with tarfile.open(tmp_path / "x.tar", "w") as made:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "c"
        made.addfile(link)
    return tmp_path / "x.tar"


def test_members_are_read_from_their_places(tar: Path) -> None:
    found = {m.name: read_part(tar, m.offset_data, m.size) for m in tar_members(tar)}
    assert {name: found[name] for name in FILES} == FILES
    assert set(found) == set(FILES)


@pytest.mark.parametrize("left", [1, 700, 2047])
def test_a_cut_tar_gives_what_comes_before(tar: Path, left: int) -> None:
    (last,) = (m for m in tar_members(tar) if m.name == "c")
    data = tar.read_bytes()[: last.offset_data + left]
    tar.write_bytes(data)
    names: list[str] = []
    with pytest.raises(tarfile.ReadError, match="c goes on beyond the end"):
        names.extend(member.name for member in tar_members(tar))
    assert names[-2:] == ["folder/b.bin", "c"]
    with pytest.raises(OSError, match=f"expected 2048 bytes at .*, got {left}"):
        read_part(tar, last.offset_data, last.size)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    values = pa.table({"n": list(range(500)), "text": [f"row {n}" for n in range(500)]})
    pq.write_table(values, tmp_path / "x.parquet", row_group_size=150)
    return tmp_path / "x.parquet"


def test_cells_in_any_order_and_in_threads(table: Path) -> None:
    rows = [0, 1, 63, 64, 149, 150, 499, 2, 2, 300, 64]

    def look() -> None:
        assert [read_cell(table, "n", row) for row in rows] == rows
        assert read_cell(table, "text", 250) == "row 250"
        done.append(True)

    done: list[bool] = []
    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4


def test_cells_that_are_not_there(table: Path) -> None:
    for row in (-1, 500):
        with pytest.raises(OSError, match=f"row {row}: no such row"):
            read_cell(table, "n", row)
    data = table.read_bytes()
    (table.parent / "cut.parquet").write_bytes(data[:-30])
    with pytest.raises(OSError, match=r"row 3: "):
        read_cell(table.parent / "cut.parquet", "n", 3)
    with pytest.raises(FileNotFoundError):
        read_cell(table.parent / "none.parquet", "n", 3)
    assert read_cell(table, "n", 3) == 3  # after errors too


def test_image_files_as_the_hub_writes_them(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"photo")
    for value, expected in (
        (b"photo", b"photo"),
        ({"bytes": b"photo", "path": "y.jpg"}, b"photo"),
        ({"bytes": None, "path": "x.jpg"}, b"photo"),
        ({"bytes": None, "path": None}, None),
        ({}, None),
        (None, None),
        ("photo", None),
    ):
        assert image_bytes(value, tmp_path) == expected
    with pytest.raises(FileNotFoundError):
        image_bytes({"bytes": None, "path": "y.jpg"}, tmp_path)
