"""Whatever is wrong with an image, a box or a disk: a row with a reason, or one clear line."""

import dataclasses
import errno
import io
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hbr.curation.config import (
    BoxesConfig,
    CurationConfig,
    DetectorConfig,
    OutputConfig,
    SizeConfig,
)
from hbr.curation.engines.local import LocalEngine
from hbr.curation.manifest import Manifest
from hbr.curation.record import CurationError
from hbr.curation.runs.run import curate
from hbr.curation.sources.base import Box, ImageRef, SourceImage
from hbr.curation.sources.opening import guess_source, open_source

HERE = LocalEngine(workers=0)
PERSON = Box(10, 10, 290, 230, label="person")
SETTINGS = CurationConfig(
    name="bad", size=SizeConfig(longer=64), output=OutputConfig(("folder",)), errors=1.0
)


@pytest.fixture
def image(tmp_path):
    """An image of a source, of these bytes."""

    def make(key: str, data: bytes | None, boxes=(PERSON,), source="s", **more) -> SourceImage:
        path = tmp_path / "in" / source / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if data is not None:
            path.write_bytes(data)
        return SourceImage(source=source, key=key, ref=ImageRef.file(path), boxes=boxes, **more)

    return make


@pytest.fixture
def run(tmp_path, listed):
    """Curate some images; the records, and the summary."""

    def go(*images: SourceImage, config: CurationConfig = SETTINGS):
        names = sorted({i.source for i in images})
        sources = [listed(n, [i for i in images if i.source == n]) for n in names]
        summary = curate(config, tmp_path / "out", engine=HERE, sources=sources)
        for step in summary.funnel:
            assert step.entered == step.passed + sum(step.stopped.values())
        return list(Manifest(tmp_path / "out")), summary

    return go


def animation() -> bytes:
    frames = [Image.new("RGB", (300, 240), c) for c in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def deep_png(seed: int) -> bytes:
    import cv2

    small = np.random.default_rng(seed).integers(8000, 57000, (120, 150, 3), np.uint16)
    big = cv2.resize(small, (300, 240), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", big)[1].tobytes()


def test_images_that_cannot_be_used(image, run, photo_file) -> None:
    good = photo_file(1)
    bad = {
        "missing.jpg": (None, "missing"),
        "empty.jpg": (b"", "unreadable"),
        "cut.jpg": (good[: len(good) // 2], "unreadable"),
        "text.jpg": (b"<html>no such photo</html>", "unreadable"),
        "moving.webp": (animation(), "unreadable"),
    }
    images = [image(key, data) for key, (data, _) in bad.items()]
    other = image("other.jpg", photo_file(2), width=240, height=300)
    told = dataclasses.replace(image("told.jpg", good), error="line 7: no number")
    records, summary = run(*images, other, told, image("good.jpg", good, width=300, height=240))
    reasons = {r.key: (r.stage, r.reason) for r in records}
    expected = {key: ("read", reason) for key, (_, reason) in bad.items()}
    expected |= {"other.jpg": ("read", "other-size"), "told.jpg": ("read", "source")}
    assert reasons == {**expected, "good.jpg": ("splits", None)}
    assert summary.errors == 7
    assert summary.kept == 1
    details = {r.key: r.detail for r in records}
    assert details["other.jpg"] == "is 300x240, the annotations say 240x300"
    assert "animation" in details["moving.webp"]
    assert details["told.jpg"] == "line 7: no number"
    assert details["missing.jpg"] == "missing.jpg: No such file or directory"
    assert all("\n" not in (d or "") for d in details.values())


def test_images_of_other_kinds_are_used(image, run, photo_file) -> None:
    buffer = io.BytesIO()
    rgba = Image.open(io.BytesIO(photo_file(4))).convert("RGBA")
    rgba.putalpha(Image.linear_gradient("L").resize(rgba.size))
    rgba.save(buffer, "PNG")
    files = {
        "cmyk.jpg": photo_file(1, mode="CMYK"),
        "grey.jpg": photo_file(2, mode="L"),
        "deep.png": deep_png(3),
        "clear.png": buffer.getvalue(),
        "palette.png": photo_file(5, format="PNG", mode="P"),
        "wrong-name.png": photo_file(6),
    }
    records, summary = run(*(image(key, data) for key, data in files.items()))
    assert {r.key: r.reason for r in records} == dict.fromkeys(files)
    assert summary.kept == len(files)


def test_boxes_that_cannot_be_used(image, run, photo_file) -> None:
    nan = math.nan
    boxes = (
        PERSON,
        Box(nan, 0, 5, 5, label="person"),
        Box(5, 5, 5, 90, label="person"),
        Box(400, 5, 500, 90, label="person"),
        Box(0, 0, 20, 20, label="person"),
    )
    records, summary = run(
        image("a.jpg", photo_file(1), boxes),
        image("nobody.jpg", photo_file(2), ()),
        image("unlabelled.jpg", photo_file(3), None),
    )
    assert sorted((r.key, r.reason or "kept") for r in records) == [
        ("a.jpg", "empty"),
        ("a.jpg", "kept"),
        ("a.jpg", "not-a-number"),
        ("a.jpg", "outside"),
        ("a.jpg", "small"),
        ("nobody.jpg", "no-people"),
        ("unlabelled.jpg", "unlabelled"),
    ]
    assert summary.errors == 0  # of images there is none
    assert summary.images == 3


def test_two_sources_with_the_same_file_names(image, run, photo_file, tmp_path) -> None:
    pairs = [image("a.jpg", photo_file(s), source=name) for s, name in ((1, "x"), (2, "y"))]
    records, summary = run(*pairs)
    assert len({r.id for r in records}) == 2
    assert summary.kept == 2
    assert len(list((tmp_path / "out/crops").rglob("*.png"))) == 2


def test_a_source_that_names_an_image_twice(image, run, photo_file, tmp_path) -> None:
    one = image("a.jpg", photo_file(1))
    records, summary = run(one, one, one)
    assert sorted(r.reason or "kept" for r in records) == ["kept", "repeated", "repeated"]
    assert len({r.id for r in records}) == 3
    assert summary.errors == 2


def test_no_people_anywhere_is_no_crash(image, run, photo_file, tmp_path) -> None:
    _, summary = run(image("a.jpg", photo_file(1), ()), image("b.jpg", photo_file(2), ()))
    assert (summary.rows, summary.kept) == (2, 0)
    assert "0 square crops" in (tmp_path / "out/README.md").read_text()


def test_an_empty_source_is_no_crash(listed, tmp_path) -> None:
    summary = curate(SETTINGS, tmp_path, engine=HERE, sources=[listed("s", [])])
    assert (summary.images, summary.rows, summary.kept) == (0, 0, 0)
    assert len(Manifest(tmp_path)) == 0


def test_too_many_errors_stop_the_run_and_a_milder_one_goes_on(
    image, run, photo_file, tmp_path
) -> None:
    images = [image(f"{i}.jpg", photo_file(i) if i else b"") for i in range(10)]
    strict = dataclasses.replace(SETTINGS, errors=0.05)
    with pytest.raises(CurationError) as told:
        run(*images, config=strict)
    assert str(told.value) == (
        "1 of 10 images cannot be used, such as s/0.jpg (unreadable: 0.jpg: is empty; get an "
        "undamaged copy): more than the 5.0% that `errors` allows; what is done is kept, and a run "
        "that allows more resumes"
    )
    assert not (tmp_path / "out/manifest.parquet").exists()
    records, summary = run(*images, config=dataclasses.replace(SETTINGS, errors=0.1))
    assert summary.errors == 1
    assert len(records) == 10


def test_images_that_came_back_are_used(image, run, photo_file, tmp_path, digests) -> None:
    """Each run tries again what an earlier one could not use, and only that."""
    config = dataclasses.replace(SETTINGS, chunk=3)
    good = [photo_file(seed) for seed in range(6)]
    # in three chunks: of one nothing can be used, of one a part
    names = ["a", "b", "c", "d", "e", "f"]
    first = [None, b"cut", None, good[3], good[4][:99], good[5]]
    there = zip(names, first, strict=True)
    _, summary = run(*[image(f"{n}.jpg", data) for n, data in there], config=config)
    assert (summary.errors, summary.kept) == (4, 2)
    images = [image(f"{n}.jpg", data) for n, data in zip(names, good, strict=True)]
    for _ in range(2):
        records, summary = run(*images, config=config)
        assert (summary.errors, summary.kept) == (0, 6)
        assert len(records) == 6
    assert "read" not in summary.costs  # nothing was left to do
    again = digests(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "before")
    run(*images, config=config)
    assert digests(tmp_path / "out") == again


def test_what_no_stage_foresaw_is_a_row(image, run, photo_file, monkeypatch) -> None:
    """A library's error, or no memory, over one image: the others go on."""
    import cv2

    from hbr.curation.pipeline import chunk

    real_decode, real_cut = chunk.decode, chunk.crop_pixels

    def decode(data, name, **options):
        if name == "greedy.jpg":
            raise MemoryError("Unable to allocate 12 GiB")
        return real_decode(data, name, **options)

    def cut(pixels, x, y, side, config):
        if x > 140:  # the second crop of two
            raise cv2.error("(-215:Assertion failed)\n > of a library")
        return real_cut(pixels, x, y, side, config)

    monkeypatch.setattr(chunk, "decode", decode)
    monkeypatch.setattr(chunk, "crop_pixels", cut)
    two = (Box(10, 10, 130, 130, label="person"), Box(170, 10, 290, 130, label="person"))
    records, summary = run(
        image("greedy.jpg", photo_file(1)),
        image("odd.jpg", photo_file(2), two),
        image("good.jpg", photo_file(3), two[:1]),
    )
    told = {r.key: (r.stage, r.reason, r.detail) for r in records}
    assert told == {
        "greedy.jpg": ("read", "failed", "MemoryError: Unable to allocate 12 GiB"),
        "odd.jpg": ("read", "failed", "error: (-215:Assertion failed) > of a library"),
        "good.jpg": ("splits", None, None),
    }
    assert (summary.errors, summary.kept) == (2, 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_detector_that_cannot_look_at_an_image(
    image, run, photo_file, monkeypatch, batch: int
) -> None:
    from hbr.people import detectors
    from hbr.people.types import People

    broken = False

    def load_detector(name, **options):
        def detect(pictures):
            if broken or any(min(p.shape[:2]) < 100 for p in pictures):
                raise RuntimeError("a kernel does not fit")
            return [People(np.array([[10.0, 10, 230, 230]]), np.ones(1)) for _ in pictures]

        return detect

    monkeypatch.setattr(detectors, "load_detector", load_detector)
    detector = BoxesConfig(detector=DetectorConfig("any", batch=batch))
    config = dataclasses.replace(SETTINGS, boxes=detector)
    images = [
        image("a.jpg", photo_file(1), None),
        image("strip.jpg", photo_file(2, (400, 40)), None),
        image("c.jpg", photo_file(3), None),
    ]
    records, _ = run(*images, config=config)
    assert {r.key: r.reason for r in records} == {
        "a.jpg": None,
        "strip.jpg": "failed",
        "c.jpg": None,
    }
    broken = True  # then it is no image's fault, and nothing is recorded
    with pytest.raises(RuntimeError, match="a kernel does not fit"):
        run(*images[1:2], config=config)


def test_many_errors_stop_early(image, photo_file, listed, tmp_path) -> None:
    images = [image(f"{i}.jpg", None) for i in range(3000)]
    taken = []

    class Counting:
        check = HERE.check

        def run(self, config, out, chunks):
            for done in HERE.run(config, out, chunks):
                taken.append(done.id)
                yield done

    strict = dataclasses.replace(SETTINGS, errors=0.1, chunk=50)
    with pytest.raises(CurationError, match="150 of 150 images cannot be used"):
        curate(strict, tmp_path, engine=Counting(), sources=[listed("s", images)])
    assert len(taken) == 3  # more than a tenth of the first thousand


def test_a_full_disk_stops_with_its_name_and_can_go_on(
    image, photo_file, listed, tmp_path, monkeypatch
) -> None:
    images = [image(f"{i}.jpg", photo_file(i)) for i in range(4)]
    source, out = [listed("s", images)], tmp_path / "full"
    config = dataclasses.replace(SETTINGS, chunk=2)
    from hbr.curation.pipeline import store

    real, calls = store.replacing, []

    def full(path):
        calls.append(path)
        if len(calls) > 3:  # the first chunk's crops and part fit, and the next one's crops
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path)

    monkeypatch.setattr(store, "replacing", full)
    with pytest.raises(OSError, match="No space left"):
        curate(config, out, engine=HERE, sources=source)
    monkeypatch.undo()
    assert len(list(out.glob("work/*/parts/*.parquet"))) == 1
    assert not (out / "manifest.parquet").exists()
    summary = curate(config, out, engine=HERE, sources=source)
    assert summary.kept == 4


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_disk_that_is_really_full(hbr_command, shared, tmp_path) -> None:
    disk, recipe = tmp_path / "disk", tmp_path / "small.yaml"
    disk.mkdir()
    recipe.write_text("chunk: 4\n")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", str(disk)])
    if mounted.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        command = [
            *hbr_command,
            "curate",
            "run",
            "-i",
            str(shared / "photos/coco-cc/instances.json"),
        ]
        command += ["-o", str(disk / "out"), "--workers", "1"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert f"hbr: {disk}/out/work" in done.stderr
        assert done.stderr.endswith(": No space left on device\n")
        assert "Traceback" not in done.stderr
        assert not list(disk.rglob("*.part"))
        assert not (disk / "out/manifest.parquet").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_the_samples_of_every_format_run_through(shared: Path, tmp_path) -> None:
    """Images that are not there are rows; those that are give crops."""
    for name in ("voc", "openimages", "crowdhuman"):
        source = open_source(guess_source(shared / "annotations" / name))
        config = dataclasses.replace(SETTINGS, name=name)
        summary = curate(config, tmp_path / name, engine=HERE, sources=[source])
        assert summary.rows >= summary.images > 0
        assert summary.funnel[0].entered == summary.rows
        if name == "voc":
            assert summary.errors == 0
            assert summary.kept > 10
        else:
            assert summary.errors > 0


def test_a_run_with_errors_says_so_at_the_command_line(call_hbr, photo_file, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jpg").write_bytes(photo_file(1))
    (tmp_path / "in/b.jpg").write_bytes(b"no photo")
    done = call_hbr(
        "curate", "run", "-i", tmp_path / "in", "-o", tmp_path / "out", "--workers", "1"
    )
    assert done.returncode == 1
    assert "hbr: 1 of 2 images cannot be used" in done.stderr
    recipe = tmp_path / "mild.yaml"
    recipe.write_text("errors: 0.5\n")
    done = call_hbr(
        "curate", "run", recipe, "-i", tmp_path / "in", "-o", tmp_path / "out", "--workers", "1"
    )
    assert done.returncode == 3
    assert done.stdout.strip().endswith("manifest.parquet")
    assert "unlabelled 1" in done.stderr
