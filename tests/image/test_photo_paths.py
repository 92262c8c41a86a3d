"""Which files are found in folders and by globs."""

import itertools
from pathlib import Path

import pytest

from hbr.image.paths import (
    has_suffix,
    is_picture_name,
    is_thumbnail_folder,
    match_files,
    split_glob,
    walk_files,
)
from hbr.image.search import LeftOut, find_photos, spread, walk_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "c.jp2", "d.txt", ".e.png", "x.png/f.tif", ".g/h.png", "i/j"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    (tmp_path / "i" / "above").symlink_to(tmp_path)
    (tmp_path / "i" / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "i" / "loop.png").symlink_to("loop.png")
    return tmp_path


def test_photos_below_a_folder_without_what_is_hidden_or_linked(folder: Path) -> None:
    found = [path.relative_to(folder).as_posix() for path in find_photos(folder)]
    assert found == ["a.JPG", "b.png", "i/link.png", "x.png/f.tif"]


def test_what_is_left_out_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    jpeg = b"\xff\xd8\xff\xe0" + bytes(60)
    for name, data in {
        "a.jpg": jpeg,
        "b.CR2": b"raw",
        "sub/c.cr2": b"raw",
        "sub/d.psd": b"8BPS",
        "IMG_0001": jpeg,
        "notes": b"text",
        "e.txt": b"text",
        "@eaDir/f.jpg": jpeg,
        "sub/@eaDir/g.jpg": jpeg,
        ".hidden.cr2": b"raw",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    with caplog.at_level("WARNING", logger="hbr"):
        assert find_photos(tmp_path) == [tmp_path / "a.jpg"]
    said = sorted(message.replace(f"{tmp_path}/", "") for message in caplog.messages)
    assert "IMG_0001: without a suffix, passed over; rename" in said
    text = "\n".join(said)
    assert " and 1 more are camera raw files, which are not read; develop them" in text
    assert "sub/d.psd: is a Photoshop file; " in text
    assert "@eaDir and 1 more: thumbnails, skipped" in text
    assert len(said) == 4
    caplog.clear()
    assert list(walk_photos(tmp_path, recursive=False)) == ["a.jpg"]
    assert not any("thumbnails" in line or "psd" in line for line in caplog.messages)


def test_members_of_archives_are_left_out_by_name() -> None:
    left_out = LeftOut()
    for name in ("a.jpg", "b.heics", "c.json", "sub/d.heics", "e"):
        left_out.add_name(name)
    (line,) = left_out.lines()
    assert line.startswith("b.heics and 1 more are HEIC files, which are not read; ")


def test_a_walk_goes_where_it_is_let(folder: Path) -> None:
    entered: list[Path] = []
    flat = walk_files(folder, is_picture_name, enter=lambda f: bool(entered.append(f)))
    assert sorted(flat) == ["a.JPG", "b.png", "c.jp2"]
    assert sorted(entered) == [folder / "i", folder / "x.png"]
    every = sorted(walk_files(folder, lambda name: True))
    assert every == [
        *("a.JPG", "b.png", "c.jp2", "d.txt"),
        *("i/j", "i/link.png", "i/loop.png", "x.png/f.tif"),
    ]


def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        list(walk_files(tmp_path / "none", is_picture_name))
    errors: list[OSError] = []
    assert not list(walk_files(tmp_path / "none", is_picture_name, on_error=errors.append))
    assert [e.filename for e in errors] == [caught.value.filename] == [str(tmp_path / "none")]


def test_globs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert match_files(f"{folder}/*.png") == [folder / "b.png", folder / "x.png"]
    monkeypatch.chdir(folder)
    assert match_files("x*/**/*.tif") == [Path("x.png", "f.tif")]
    assert match_files("none*") == []


def test_brackets_of_a_name_in_a_glob_are_the_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Album [2020]/a.jpg", "Album 2/b.jpg", "x/[1]/c.jpg", "x/1/d.jpg", "q?/e*.jpg"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    for pattern, expected in {
        "Album [2020]/*.jpg": ["Album [2020]/a.jpg"],
        "Album [0-9]/*.jpg": ["Album 2/b.jpg"],
        "Album */*.jpg": ["Album 2/b.jpg", "Album [2020]/a.jpg"],
        "*/[1]/*.jpg": ["x/[1]/c.jpg"],
        "x/**/[cd].jpg": ["x/1/d.jpg", "x/[1]/c.jpg"],
        "q?/e*.jpg": ["q?/e*.jpg"],
        "x/*/": ["x/1", "x/[1]"],
        str(tmp_path / "Album [2020]" / "?.jpg"): [str(tmp_path / "Album [2020]" / "a.jpg")],
    }.items():
        assert [str(path) for path in match_files(pattern)] == expected, pattern
    assert split_glob("Album [2020]/sub/*.jpg") == (Path("Album [2020]/sub"), ("*.jpg",))
    assert split_glob("Album [19]/sub/*.jpg") == (Path(), ("Album [19]", "sub", "*.jpg"))


def test_names_with_dots_need_not_have_a_suffix() -> None:
    for name in ("IMG_0001", "Anna 3.5.1962", "St. Peter", "scan.1", ".hidden"):
        assert not has_suffix(name), name
    for name in ("a.jpg", "a.JPG_original", "a.b.mov", "notes.txt~"):
        assert has_suffix(name), name


def test_folders_of_thumbnails() -> None:
    for name in ("@eaDir", "a/.@__thumb", "#recycle", "@Recycle", "$RECYCLE.BIN"):
        assert is_thumbnail_folder(name), name
    for name in ("eaDir", "@home", "#2020", "thumbs"):
        assert not is_thumbnail_folder(name), name


def test_camera_raw_beside_its_photo_is_not_a_second_picture() -> None:
    assert [n for n in ("a.jpg", "a.NEF", "a.psd", "a.jp2") if is_picture_name(n)] == [
        "a.jpg",
        "a.jp2",
    ]


@pytest.mark.parametrize(("count", "most"), [(0, 5), (3, 5), (5, 5), (17, 16), (31, 16), (100, 5)])
def test_some_photos_are_spread_over_all(count, most):
    found = spread(range(count), most)
    assert len(found) == min(count, most)
    steps = {b - a for a, b in itertools.pairwise(found)}
    assert not steps or max(steps) - min(steps) <= 1
    assert not found or found[0] + (count - 1 - found[-1]) <= count / len(found)
