"""Which files are found in folders and by globs."""

from pathlib import Path

import pytest

from hbr.image.paths import find_photos, is_picture_name, match_files, walk_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "c.heic", "d.txt", ".e.png", "x.png/f.tif", ".g/h.png", "i/j"):
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


def test_a_walk_goes_where_it_is_let(folder: Path) -> None:
    entered: list[Path] = []
    flat = walk_files(folder, is_picture_name, enter=lambda f: bool(entered.append(f)))
    assert sorted(flat) == ["a.JPG", "b.png", "c.heic"]
    assert sorted(entered) == [folder / "i", folder / "x.png"]
    every = sorted(walk_files(folder, lambda name: True))
    assert every == [
        *("a.JPG", "b.png", "c.heic", "d.txt"),
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
