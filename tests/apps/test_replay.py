"""`hbr replay`: restored files made again, and what it says where they cannot be the same."""

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hbr.image import read_photo, write_photo
from hbr.image.recipe_text import recipe_text, with_recipe

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]


@pytest.fixture
def restored(call_hbr: Run, photo: Write, toy: Path, tmp_path: Path) -> Callable[..., Path]:
    """Restore a photo into `out`, with these options."""

    def restore(name: str, *options: str) -> Path:
        photo(tmp_path / name)
        done = call_hbr("restore", name, "-o", "out", "--model", toy, *options, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return tmp_path / done.stdout.strip()

    return restore


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.png", ()),
        ("a.jpg", ("--quality", "80", "--seed", "7")),
        ("a.jpg", ("--format", "webp", "--lossless")),
        ("a.png", ("--format", "tif", "--scale", "2", "--tile", "32", "--color", "adain")),
        ("a.webp", ("--size", "90", "--dtype", "bfloat16")),
        ("a.png", ("--gate", "auto", "--png-compression", "1")),
        ("a.png", ("--temporal-color", "--color", "adain", "--scale", "1.5")),
    ],
)
def test_the_same_bytes_again(
    restored: Callable[..., Path],
    call_hbr: Run,
    toy: Path,
    tmp_path: Path,
    name: str,
    options: tuple[str, ...],
) -> None:
    file = restored(name, *options)
    done = call_hbr("replay", file, "-o", "again", "--model", toy, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "again\n"), done.stderr
    assert done.stderr.endswith(f"{file.name}: the same bytes\n")
    assert (tmp_path / "again").read_bytes() == file.read_bytes()


@pytest.mark.slow
def test_the_embedded_model_in_a_process_of_its_own(
    run_hbr: Run, call_hbr: Run, photo: Write, tmp_path: Path
) -> None:
    photo(tmp_path / "a.jpg")
    done = call_hbr("restore", "a.jpg", "-o", "b.jpg", "--threads", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    env = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = run_hbr("replay", "b.jpg", cwd=tmp_path, env=env, timeout=120)
    assert (done.returncode, done.stderr) == (0, "hbr: b.jpg: the same bytes\n")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp"])
def test_the_recipe_changes_no_pixel_and_names_no_folder(
    restored: Callable[..., Path], call_hbr: Run, toy: Path, tmp_path: Path, name: str
) -> None:
    file = restored(name, "--recipe", "both")
    plain = tmp_path / "plain" / name
    asked = ("restore", name, "-o", plain, "--model", toy)
    assert call_hbr(*asked, "--recipe", "off", cwd=tmp_path).returncode == 0
    assert recipe_text(read_photo(plain)) is None
    np.testing.assert_array_equal(read_photo(file).pixels, read_photo(plain).pixels)
    assert 0 < file.stat().st_size - plain.stat().st_size < 1200
    for made in (file, file.with_name(f"{name}.hbr.json")):
        data = made.read_bytes()
        for word in (*toy.parent.parts[1:], *tmp_path.parts[1:]):
            assert word.encode() not in data or len(word) < 4
    shown = call_hbr("replay", "--show", file)
    assert json.loads(shown.stdout) == json.loads(recipe_text(read_photo(file)) or "")


def test_a_sidecar_brings_back_a_lost_file(
    restored: Callable[..., Path], call_hbr: Run, toy: Path, tmp_path: Path
) -> None:
    file = restored("a.jpg", "--recipe", "sidecar")
    sidecar = file.with_name("a.jpg.hbr.json")
    assert recipe_text(read_photo(file)) is None
    data = file.read_bytes()
    manifest = json.loads(sidecar.read_text())
    assert manifest["title"] == "a.jpg"
    assert manifest["ingredients"][0]["relationship"] == "parentOf"
    labels = [assertion["label"] for assertion in manifest["assertions"]]
    assert labels == ["c2pa.actions.v2", "c2pa.hash.data", "org.hbr.recipe"]
    assert call_hbr("replay", file, "--model", toy).returncode == 0
    file.unlink()
    done = call_hbr("replay", sidecar, "-o", file, "--model", toy)
    assert (done.returncode, file.read_bytes() == data) == (0, True), done.stderr


def test_a_stream_carries_its_recipe_too(
    hbr_command: list[str], call_hbr: Run, photo: Write, light: Path, tmp_path: Path
) -> None:
    source = photo(tmp_path / "elsewhere" / "a.png")
    command = [*hbr_command, "restore", "-", "-o", "-", "--model", str(light)]
    done = subprocess.run(command, input=source.read_bytes(), capture_output=True, timeout=120)
    (tmp_path / "out.png").write_bytes(done.stdout)
    found = call_hbr("replay", "out.png", "--model", light, cwd=tmp_path)
    assert (found.returncode, "--source names it" in found.stderr) == (1, True)
    for given in (source, source.parent):
        found = call_hbr("replay", "out.png", "--model", light, "--source", given, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
    shutil.copy(source, tmp_path / "b.png")
    photo(tmp_path / "a.png", 4)
    assert call_hbr("replay", "out.png", "--model", light, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("options", [{"format": "jpeg", "quality": 70}, {"png_compression": 2}])
def test_what_python_saves_carries_its_recipe_too(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    from hbr import Restorer

    restorer = Restorer.from_pretrained(toy, device="cpu")
    file = restorer(photo(tmp_path / "a.png"), seed=3, tile=32).save(tmp_path / "b.png", **options)
    done = call_hbr("replay", file, "--model", toy)
    assert (done.returncode, done.stderr.endswith("b.png: the same bytes\n")) == (0, True)
    plain = restorer(tmp_path / "a.png").save(tmp_path / "c.png", recipe=False)
    assert recipe_text(read_photo(plain)) is None
    memory = restorer(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "d.png")
    assert recipe_text(read_photo(memory)) is None


def test_restoring_a_restored_photo_replaces_the_recipe(
    restored: Callable[..., Path], call_hbr: Run, toy: Path, tmp_path: Path
) -> None:
    file = restored("a.jpg", "--seed", "1")
    asked = ("restore", file, "--model", toy, "-o")
    assert call_hbr(*asked, tmp_path / "twice.jpg", "--seed", "2").returncode == 0
    assert call_hbr(*asked, tmp_path / "none.jpg", "--recipe", "off").returncode == 0
    text = recipe_text(read_photo(tmp_path / "twice.jpg"))
    assert text is not None
    assert json.loads(text)["settings"]["seed"] == 2
    assert recipe_text(read_photo(tmp_path / "none.jpg")) is None
    assert b"hbr_recipe" not in (tmp_path / "none.jpg").read_bytes()
    assert (
        call_hbr("replay", tmp_path / "twice.jpg", "--source", file, "--model", toy).returncode == 0
    )


def test_what_the_camera_wrote_stays(
    call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0Grandma, 1950"
    Image.open(photo(tmp_path / "plain.png")).save(tmp_path / "a.jpg", exif=exif)
    done = call_hbr("restore", "a.jpg", "-o", "b.jpg", "--model", toy, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "b.jpg") as image:
        assert image.getexif().get_ifd(0x8769)[0x9286] == b"ASCII\0\0\0Grandma, 1950"
    assert call_hbr("replay", "b.jpg", "--model", toy, cwd=tmp_path).returncode == 0


class TestWhatCannotBeTheSame:
    def test_no_recipe(self, call_hbr: Run, photo: Write, tmp_path: Path) -> None:
        done = call_hbr("replay", photo(tmp_path / "a.png"))
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"hbr: .*a\.png: holds no recipe and has no sidecar; .*\n", done.stderr)

    def test_no_such_file(self, call_hbr: Run, tmp_path: Path) -> None:
        for name in ("gone.png", "gone.png.hbr.json"):
            done = call_hbr("replay", name, cwd=tmp_path)
            assert done.returncode != 0
            assert done.stderr.count("\n") == 1
            assert "gone.png" in done.stderr

    @pytest.mark.parametrize("text", ["{", "[]", '{"assertions": 3}', '{"assertions": []}'])
    def test_a_sidecar_of_something_else(self, call_hbr: Run, tmp_path: Path, text: str) -> None:
        (tmp_path / "a.png.hbr.json").write_text(text)
        done = call_hbr("replay", "a.png.hbr.json", cwd=tmp_path)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "a.png.hbr.json holds no recipe of hbr" in done.stderr

    def test_another_photo_under_its_name(
        self, restored: Callable[..., Path], call_hbr: Run, photo: Write, toy: Path, tmp_path: Path
    ) -> None:
        file = restored("a.png")
        photo(tmp_path / "a.png", 3)
        done = call_hbr("replay", file, "--model", toy, cwd=tmp_path)
        assert done.returncode == 1
        assert "is not the photo that" in done.stderr
        (tmp_path / "a.png").unlink()
        done = call_hbr("replay", file, "--model", toy, cwd=tmp_path)
        assert (done.returncode, "a.png is not in" in done.stderr) == (1, True)

    def test_another_model(
        self, restored: Callable[..., Path], call_hbr: Run, toy: Path, tmp_path: Path
    ) -> None:
        import toy_models

        file = restored("a.png")
        other = toy_models.write(tmp_path / "toy.safetensors")
        for model in (other, "nano"):
            done = call_hbr("replay", file, "--model", model)
            assert (done.returncode, "is another model than" in done.stderr) == (4, True)
        done = call_hbr("replay", file)
        assert (done.returncode, "--model names it" in done.stderr) == (4, True)

    def test_other_versions_are_named_if_the_bytes_differ(
        self, restored: Callable[..., Path], call_hbr: Run, toy: Path
    ) -> None:
        file = restored("a.png")
        made = read_photo(file)
        recipe = json.loads(recipe_text(made) or "")
        recipe["versions"]["torch"] = "2.0.0"
        recipe["threads"] += 1
        pixels = made.pixels.copy()
        text = json.dumps(recipe, separators=(",", ":"))
        write_photo(with_recipe(made, text, "png")[0], file)
        done = call_hbr("replay", file, "--model", toy)
        assert (done.returncode, done.stderr.endswith("the same bytes\n")) == (0, True)
        pixels[0, :2] ^= 3
        changed = made.with_pixels(np.moveaxis(pixels / np.float32(255), -1, 0))
        write_photo(with_recipe(changed, text, "png")[0], file)
        done = call_hbr("replay", file, "--model", toy)
        assert done.returncode == 3
        assert "other bytes: 2 of 1920 pixels differ, by at most 3 levels" in done.stderr
        assert "torch 2.0.0, here " in done.stderr

    def test_a_file_above_the_usual_limit_is_not_damaged(
        self,
        restored: Callable[..., Path],
        call_hbr: Run,
        toy: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        file = restored("a.png")
        made = read_photo(file)
        plain = made.with_pixels(np.full((3, *made.size), 0.5, np.float32))
        write_photo(with_recipe(plain, recipe_text(made), "png")[0], file)
        assert read_photo.__kwdefaults__ is not None
        monkeypatch.setitem(read_photo.__kwdefaults__, "max_pixels", 1000)
        done = call_hbr("replay", file, "--model", toy, "--max-pixels", 2000)
        assert (done.returncode, "of 1920 pixels differ" in done.stderr) == (3, True), done.stderr

    def test_transparency_that_was_added_later(
        self, restored: Callable[..., Path], call_hbr: Run, toy: Path
    ) -> None:
        file = restored("a.png")
        made = read_photo(file)
        seen = dataclasses.replace(made, alpha=np.full(made.size, 200, np.uint8))
        write_photo(with_recipe(seen, recipe_text(made), "png")[0], file)
        done = call_hbr("replay", file, "--model", toy)
        assert (done.returncode, "its transparency is not" in done.stderr) == (3, True)

    def test_metadata_that_was_added_later(
        self, restored: Callable[..., Path], call_hbr: Run, toy: Path
    ) -> None:
        file = restored("a.png")
        buffer = io.BytesIO()
        with Image.open(file) as image:
            from PIL.PngImagePlugin import PngInfo

            info = PngInfo()
            info.add_text("hbr", image.info["hbr"])
            info.add_text("Title", "Grandma")
            image.save(buffer, "PNG", pnginfo=info)
        file.write_bytes(buffer.getvalue())
        done = call_hbr("replay", file, "--model", toy)
        assert done.returncode == 3
        assert "its pixels are the same, its metadata or compression are not" in done.stderr

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"hbr_recipe": 2}, "a newer hbr wrote this recipe"),
            ({"hbr_recipe": 1, "spell": 1}, "spell is not known"),
            ({"hbr_recipe": 1, "settings": {"scale": 99}}, "scale is 99"),
        ],
    )
    def test_a_recipe_that_makes_no_sense(
        self, restored: Callable[..., Path], call_hbr: Run, change: dict[str, object], said: str
    ) -> None:
        file = restored("a.jpg")
        made = read_photo(file)
        recipe = {**json.loads(recipe_text(made) or ""), **change}
        text = json.dumps(recipe, separators=(",", ":"))
        write_photo(with_recipe(made, text, "jpeg")[0], file)
        done = call_hbr("replay", file)
        assert (done.returncode, said in done.stderr) == (2, True), done.stderr

    def test_an_output_that_is_there(
        self, restored: Callable[..., Path], call_hbr: Run, toy: Path, tmp_path: Path
    ) -> None:
        file = restored("a.png")
        shutil.copy(file, tmp_path / "there.png")
        asked = ("replay", file, "--model", toy, "-o", tmp_path / "there.png")
        assert call_hbr(*asked).returncode == 2
        assert call_hbr(*asked, "--overwrite").returncode == 0
