"""What inputs stand for: which files are photos, which are told of, which are passed over."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbr.image import Photo, write_photo
from hbr.image.paths import CAMERA_RAW
from hbr.restoration.batch.finding import Found, PhotoList, find_inputs, lines_of

PIXELS = np.arange(6 * 5 * 3, dtype=np.uint8).reshape(6, 5, 3)


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tests' folder is the current one, so that names are short."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def photo(name: str, format: str = "jpeg") -> Path:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    return write_photo(Photo.from_array(PIXELS), name, format=format)


def raw(name: str, data: bytes) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data)


def names(found: Found) -> list[str]:
    return [str(path) for path, _ in found.photos]


def formats(found: Found) -> dict[str, str | None]:
    return {bad.source: bad.format for bad in found.bad}


@pytest.mark.parametrize("given", ["in", "in/*", "i*"])
def test_pictures_in_a_folder_are_read_or_counted(given: str) -> None:
    photo("in/a.jpg")
    photo("in/IMG_0001")
    photo("in/Anna 3.5.1962", "png")
    photo("in/phone.heic")  # a JPEG in truth, as some phones and sites name it
    for name, data in {
        "in/b.NEF": b"MM\0*\0\0\0\x08",
        "in/c.dng": b"II*\0\x08\0\0\0",
        "in/d.CR3": b"\0\0\0\x18ftypcrx \0\0\0\1",
        "in/e.jxr": b"II\xbc\x01",
        "in/f.xcf": b"gimp xcf",
        "in/g.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "in/h.psd": b"8BPS\0\1",
        "in/i.ppm": b"P6\n5 6\n255\n",
        "in/j.tga": bytes(18),
        "in/k": b"P5 5 6 255\n",
        "in/l": b"II*\0\x10\0\0\0CR\2\0",
        "in/m": b"II\xbc\x01",
        "in/notes.txt": b"\xff\xd8\xff",
        "in/letter": b"BM did not answer: P1 is free",
        "in/film.mov": b"\0\0\0\x14ftypqt  ",
        "in/empty": b"",
        "in/.hidden": b"\xff\xd8\xff",
    }.items():
        raw(name, data)
    found = find_inputs([given], "out", recursive=given == "i*")
    expected = {"in/a.jpg", "in/IMG_0001", "in/Anna 3.5.1962", "in/phone.heic"}
    assert set(names(found)) == expected
    assert formats(found) == {
        "in/b.NEF": CAMERA_RAW,
        "in/c.dng": CAMERA_RAW,
        "in/d.CR3": CAMERA_RAW,
        "in/e.jxr": "JPEG XR",
        "in/f.xcf": "GIMP",
        "in/g.jp2": "JPEG 2000",
        "in/h.psd": "Photoshop",
        "in/i.ppm": "Netpbm",
        "in/j.tga": "TGA",
        "in/k": "Netpbm",
        "in/l": CAMERA_RAW,
        "in/m": "JPEG XR",
    }
    first, *others = lines_of(found.bad)
    assert first == (
        "in/b.NEF and 3 more are camera raw files, which are not read; "
        "develop them to JPEG, PNG or TIFF first"
    )
    assert others[3].startswith("in/h.psd: is a Photoshop file; save it as one of JPEG, PNG")


def test_only_what_is_not_read_is_no_empty_folder() -> None:
    raw("in/a.nef", b"")
    found = find_inputs(["in"], "out", recursive=False)
    assert names(found) == []
    assert [bad.error for bad in found.bad] == [
        "in/a.nef: is a camera raw file; develop it to JPEG, PNG or TIFF first"
    ]


def test_a_file_by_its_name_is_always_tried() -> None:
    raw("a.nef", b"MM\0*")
    raw("notes.txt", b"")
    assert names(find_inputs(["a.nef", "notes.txt"], "out", recursive=False)) == [
        "a.nef",
        "notes.txt",
    ]


@pytest.mark.parametrize("given", ["in", "in/**/*.jpg", "in/*"])
def test_thumbnails_of_a_nas_are_skipped_and_counted(given: str) -> None:
    for name in ("a.jpg", "sub/b.jpg"):
        photo(f"in/{name}")
        folder, _, last = name.rpartition("/")
        photo(f"in/{folder}/@eaDir/{last}/SYNOPHOTO_THUMB_XL.jpg")
    photo("in/#recycle/gone.jpg")
    found = find_inputs([given], "out", recursive=True)
    assert names(found) == ["in/a.jpg", "in/sub/b.jpg"]
    assert sorted(map(str, found.thumbnails)) == ["in/#recycle", "in/@eaDir", "in/sub/@eaDir"]
    assert not found.bad
    # but for one that is asked for
    found = find_inputs(["in/@eaDir"], "out", recursive=True)
    assert names(found) == ["in/@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg"]


def test_brackets_in_the_names_of_folders() -> None:
    photo("Album [2020]/a.jpg")
    photo("Album 2/b.jpg")
    found = find_inputs(["Album [2020]/*.jpg"], "out", recursive=False)
    assert found.photos == [(Path("Album [2020]/a.jpg"), Path("a.jpg"))]


class TestManifests:
    def test_a_path_in_each_line(self) -> None:
        for name in ("set/a.jpg", "set/sub/b c.jpg", "set/not listed.jpg"):
            photo(name)
        raw("set/list.txt", b"a.jpg\n\nsub/b c.jpg\r\n./gone.jpg\n")
        found = find_inputs([PhotoList(Path("set/list.txt"))], "out", recursive=False)
        places = [place.as_posix() for _, place in found.photos]
        assert places == ["a.jpg", "sub/b c.jpg"]
        assert [bad.error for bad in found.bad] == ["set/gone.jpg: does not exist; check the name"]

    def test_places_count_from_the_folder_that_holds_all(self) -> None:
        paths = [photo(f"set/{name}.jpg").absolute() for name in ("x/a", "x/y/b")]
        raw("lists/list", "\n".join(map(str, paths)).encode())
        found = find_inputs([PhotoList(Path("lists/list"))], "out", recursive=False)
        assert [place.as_posix() for _, place in found.photos] == ["a.jpg", "y/b.jpg"]

    @pytest.mark.parametrize("column", ["path", "name"])
    def test_a_table(self, column: str) -> None:
        photo("set/a.jpg")
        table = pa.table({column: ["a.jpg", None], "seed": [1, 2]})
        pq.write_table(table, "set/pairs.parquet")
        found = find_inputs([PhotoList(Path("set/pairs.parquet"))], "out", recursive=False)
        assert names(found) == ["set/a.jpg"]

    def test_what_is_no_list_of_photos(self) -> None:
        raw("empty.txt", b"\n")
        raw("broken.parquet", b"PAR1")
        pq.write_table(pa.table({"seed": [1]}), "other.parquet")
        given = ["empty.txt", "broken.parquet", "other.parquet", "none.txt"]
        found = find_inputs([PhotoList(Path(name)) for name in given], "out", recursive=False)
        errors = [bad.error for bad in found.bad]
        assert errors[0] == "empty.txt: lists no photos; check the file"
        assert errors[1].startswith("broken.parquet: is no list of photos (")
        assert "none of the columns path, file_name, file, name" in errors[2]
        assert errors[3].startswith("none.txt: is no list of photos (")
        assert not found.photos
