"""`hbr restore --people` and the options that go with it."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import toy_models
from hbr.config import from_dict
from hbr.models import RestorerConfig

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

BOX = ("--box", "8,6,20,24")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy model of nano's kind, which changes every pixel."""
    config = from_dict(RestorerConfig, toy_models.TRAINED)
    return toy_models.write(tmp_path_factory.mktemp("weights") / "toy.safetensors", config)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def restored(call_hbr: Run, folder: Path, *options: Any) -> Any:
    return call_hbr("restore", "a.png", "-o", "out.png", "--overwrite", *options, cwd=folder)


def test_chosen_boxes_are_restored_and_all_else_is_left(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png", size=(96, 80))
    done = restored(call_hbr, tmp_path, "--model", toy, *BOX)
    assert (done.returncode, done.stdout) == (0, "out.png\n")
    assert done.stderr == "hbr: a.png: person 1 at 8,6,20,24: tiles\n"
    before, after = pixels(tmp_path / "a.png"), pixels(tmp_path / "out.png")
    changed = (before != after).any(axis=2)
    assert changed[8:28, 10:26].any()
    changed[: 6 + 24 + 3, : 8 + 20 + 3] = False  # with the margin of the mask
    assert not changed.any()


def test_records_list_the_people(call_hbr: Run, photo: Write, toy: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png", size=(96, 80))
    more = ("--box", "50,40,30,30", "--log-format", "json")
    done = restored(call_hbr, tmp_path, "--model", toy, "--people", "auto", *BOX, *more)
    record = json.loads(done.stdout)
    assert [person["number"] for person in record["people"]] == [1, 2]
    assert record["people"][1]["box"] == [50, 40, 30, 30]
    assert record["people"] == record["provenance"]["people"]["found"]
    assert record["provenance"]["people"]["source"] == "boxes given"
    done = restored(call_hbr, tmp_path, "--model", toy, "--log-format", "json")
    record = json.loads(done.stdout)
    assert "people" not in record
    assert record["provenance"]["people"] is None


def test_boxes_from_a_file_and_single_people_of_it(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png", size=(96, 80))
    (tmp_path / "a.txt").write_text("0 0.8 0.5 0.2 0.5\n0 0.2 0.5 0.2 0.5\n")
    chosen = ("--people-from", "a.txt", "--person", "2")
    done = restored(call_hbr, tmp_path, "--model", toy, *chosen)
    assert done.stderr.endswith("person 2 at 67,20,19,40: tiles\n")
    changed = (pixels(tmp_path / "a.png") != pixels(tmp_path / "out.png")).any(axis=2)
    assert changed[:, 60:].any()
    assert not changed[:, :50].any()
    done = restored(call_hbr, tmp_path, "--model", toy, *chosen[:3], "3")
    assert done.returncode == 1
    assert done.stderr == (
        "hbr: a.png: person 3 is not there: 2 found, numbered from 1, left to right\n"
    )
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    done = restored(call_hbr, tmp_path, "--model", toy, *chosen)
    assert done.returncode == 1
    assert done.stderr == "hbr: a.png: a.txt: No such file or directory\n"


def test_without_a_detector(call_hbr: Run, photo: Write, toy: Path, tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    assert restored(call_hbr, tmp_path, "--model", toy).stderr == ""
    plain = (tmp_path / "out.png").read_bytes()
    done = restored(call_hbr, tmp_path, "--model", toy, "--people", "auto")
    assert done.returncode == 0
    assert done.stderr.startswith("hbr: nobody is looked for, as with --people off: ")
    assert "hbr fetch " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "out.png").read_bytes() == plain
    for options in (("only",), ("auto", "--background", "keep"), ("auto", "--person", "1")):
        done = restored(call_hbr, tmp_path, "--model", toy, "--people", *options)
        assert done.returncode == 4
        assert "hbr fetch " in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--box", "1,2,3"), "box is '1,2,3'; it must be x,y,width,height in pixels"),
        (("--box", "1,2,0,4"), "must be x, y, width and height"),
        (("--box", "1,2,nan,4"), "must be x, y, width and height"),
        (("--person", "one"), "person is 'one'; it must be numbers of people"),
        (("--person", "0"), "it must be numbers from 1"),
        (("--people", "auto", "--person-fidelity", "1:0.5"), "must be numbers and fidelities"),
        (("--people", "auto", "--person-fidelity", "1=2"), "a number in [0, 1]"),
        (("--person-fidelity", "1=0.5"), "needs --people auto or only"),
        (("--people", "off", "--box", "1,2,3,4"), "needs --people auto or only"),
        (("--background", "keep"), "needs --people auto or only"),
        (("--people", "only", "--background", "nano"), "it must be keep"),
        (("--box", "1,2,3,4", "--people-from", "a.txt"), "choose one of the two"),
        (("--people", "some"), "'some' is not one of"),
        (("--people", "only", *BOX, "--person-fidelity", "1=0.5"), "has no fidelity to choose"),
    ],
)
def test_wrong_options_are_wrong_usage(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    photo(tmp_path / "a.png")
    done = restored(call_hbr, tmp_path, "--model", toy, *options)
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "out.png").exists()


def test_a_box_outside_the_photo_costs_only_that_photo(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "in" / "a.png", size=(40, 40))
    photo(tmp_path / "in" / "b.png", size=(90, 90))
    box = ("--box", "50,50,20,20")
    done = call_hbr("restore", "in", "-o", "out", "--model", toy, *box, cwd=tmp_path)
    assert done.returncode == 3
    assert "a.png: the box 50,50,20,20 is outside the photo of 40×40 pixels" in done.stderr
    assert (tmp_path / "out" / "b.png").is_file()
    assert not (tmp_path / "out" / "a.png").exists()


def test_files_with_people_are_made_again(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png", size=(96, 80))
    plain = restored(call_hbr, tmp_path, "--model", toy)
    assert plain.returncode == 0
    assert b"choice" not in (tmp_path / "out.png").read_bytes()
    (tmp_path / "a.txt").write_text("0 0.8 0.5 0.2 0.5\n0 0.2 0.5 0.2 0.5\n")
    outline = {"size": [80, 96], "counts": [96 * 10, 96 * 30, 96 * 40]}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 80}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [12, 0, 36, 80], "iscrowd": 0}
            | {"segmentation": outline}
        ],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "people.json").write_text(json.dumps(content))
    for options in (
        BOX,
        ("--people", "only", "--people-from", "a.txt"),
        ("--people", "only", "--people-from", "people.json"),
    ):
        assert restored(call_hbr, tmp_path, "--model", toy, *options).returncode == 0
        again = call_hbr(
            "replay", "out.png", "-o", "again.png", "--overwrite", "--model", toy, cwd=tmp_path
        )
        assert again.returncode == 0, again.stderr
        assert (tmp_path / "again.png").read_bytes() == (tmp_path / "out.png").read_bytes()
    shutil.copy(toy, tmp_path / "behind.safetensors")
    elsewhere = ("--people", "auto", "--background", tmp_path / "behind.safetensors")
    options = (*elsewhere, "--people-from", "people.json")
    assert restored(call_hbr, tmp_path, "--model", toy, *options).returncode == 0
    assert str(tmp_path).encode() not in (tmp_path / "out.png").read_bytes()
    assert call_hbr("replay", "out.png", "--model", toy, cwd=tmp_path).returncode == 0
    (tmp_path / "people.json").write_text("{}")
    again = call_hbr("replay", "out.png", "--model", toy, cwd=tmp_path)
    assert again.returncode != 0
    assert "people.json, the file of people, is missing: another file is there" in again.stderr
