"""The recipe of a restored photo in the metadata of its file, and what stands there already."""

import dataclasses
import io
import struct
from pathlib import Path
from typing import Any
from xml.dom import minidom

import numpy as np
import pytest
from PIL import Image

from hbr.image import WRITE_SUFFIXES, Photo, read_photo, write_photo
from hbr.image.metadata import EXIF_PREFIX, entries
from hbr.image.recipe_text import BEGINNING, recipe_text, with_recipe
from hbr.image.writing import format_of

TEXT = BEGINNING + '1,"source":{"name":"a < b & \\"c\\".jpg"}}'
OTHER = BEGINNING + '1,"source":{"name":"another"}}'
USER_COMMENT, MAKER_NOTE, EXIF_IFD = 0x9286, 0x927C, 0x8769
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<r:Description r:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="me"/>'
    b'</r:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def photo(**kept: Any) -> Photo:
    pixels = np.arange(24 * 16 * 3, dtype=np.uint16).astype(np.uint8).reshape(16, 24, 3)
    return Photo(pixels=pixels, **kept)


def exif(comment: bytes | None = None, maker_note: bytes | None = None) -> bytes:
    """EXIF with the name of a camera."""
    made = Image.Exif()
    made[0x010F] = "a camera"
    inner = made.get_ifd(EXIF_IFD)
    inner[0xA002] = 24
    if comment is not None:
        inner[USER_COMMENT] = comment
    if maker_note is not None:
        inner[MAKER_NOTE] = maker_note
    return made.tobytes().removeprefix(EXIF_PREFIX)


def tags(data: bytes | None) -> dict[int, Any]:
    """The tags of EXIF as Pillow reads them."""
    read = Image.Exif()
    read.load(EXIF_PREFIX + (data or b""))
    return {**read, **read.get_ifd(EXIF_IFD)}


def given(text: str | None, kind: str = "jpeg", **kept: Any) -> Photo:
    made, has_it = with_recipe(photo(**kept), text, kind)
    assert has_it == (text is not None)
    assert recipe_text(made) == text
    return made


@pytest.mark.parametrize("suffix", sorted(WRITE_SUFFIXES - {".bmp"}))
@pytest.mark.parametrize("bits", [8, 16])
def test_every_format_gives_back_its_recipe(suffix: str, bits: int, tmp_path: Path) -> None:
    file = tmp_path / f"a{suffix}"
    plain = photo(exif=exif())
    if bits == 16:
        plain = dataclasses.replace(plain, pixels=plain.pixels.astype(np.uint16) * 257)
    made, has_it = with_recipe(plain, TEXT, format_of(file))
    assert has_it
    read = read_photo(write_photo(made, file))
    assert recipe_text(read) == TEXT
    assert tags(read.exif)[0x010F] == "a camera"
    without = read_photo(write_photo(plain, tmp_path / f"b{suffix}"))
    np.testing.assert_array_equal(read.pixels, without.pixels)
    assert recipe_text(without) is None


def test_bmp_holds_none() -> None:
    made, has_it = with_recipe(photo(), TEXT, "bmp")
    assert (recipe_text(made), has_it) == (None, False)


def test_a_photo_without_exif_gets_some_that_others_read(tmp_path: Path) -> None:
    write_photo(given(TEXT), tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        comment = image.getexif().get_ifd(EXIF_IFD)[USER_COMMENT]
    assert comment == b"ASCII\0\0\0" + TEXT.encode()


@pytest.mark.parametrize("order", ["<", ">"])
def test_maker_notes_and_other_tags_stay_where_they_are(order: str) -> None:
    note = bytes(range(200))
    before = exif(maker_note=note)
    if order == ">":
        before = in_big_endian(before)
    after = given(TEXT, exif=before).exif
    assert after is not None
    assert after.index(note) == before.index(note)
    now = tags(after)
    assert now.pop(USER_COMMENT) == b"ASCII\0\0\0" + TEXT.encode()
    now.pop(EXIF_IFD)
    was = tags(before)
    was.pop(EXIF_IFD)
    assert now == was
    numbers = [
        tag for tag, *_ in entries(after, order, struct.unpack_from(order + "I", after, 4)[0])
    ]
    assert numbers == sorted(numbers)


def in_big_endian(data: bytes) -> bytes:
    made = Image.Exif()
    made.load(data)
    made.endian = ">"
    made.get_ifd(EXIF_IFD)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "jpeg", exif=made)
    raw = bytes(Image.open(buffer).info["exif"]).removeprefix(EXIF_PREFIX)
    assert raw[:2] == b"MM"
    return raw


@pytest.mark.parametrize(
    "comment",
    [b"ASCII\0\0\0Grandma, 1950", b"UNICODE\0\0G\0r", b"no code", b"\0" * 8 + b"undefined"],
)
def test_a_comment_that_somebody_wrote_is_kept_and_the_recipe_goes_into_xmp(
    comment: bytes, tmp_path: Path
) -> None:
    made = given(TEXT, exif=exif(comment), xmp=XMP)
    assert tags(made.exif)[USER_COMMENT] == comment
    read = read_photo(write_photo(made, tmp_path / "a.jpg"))
    assert recipe_text(read) == TEXT
    assert tags(read.exif)[USER_COMMENT] == comment
    assert read.xmp is not None
    root = minidom.parseString(read.xmp.decode()).documentElement
    found = root.getElementsByTagName("r:Description")
    assert [d.getAttribute("r:about") for d in found] == ["uuid:1", "uuid:1"]
    assert found[0].getAttribute("dc:title") == "me"


@pytest.mark.parametrize("comment", [b"", b"ASCII\0\0\0", b"ASCII\0\0\0   ", b"\0" * 60])
def test_blank_comments_as_cameras_write_them_give_way(comment: bytes) -> None:
    made = given(TEXT, exif=exif(comment))
    assert made.xmp is None
    assert tags(made.exif)[USER_COMMENT].endswith(TEXT.encode())


def test_xmp_that_has_no_place_leaves_the_photo_without() -> None:
    made, has_it = with_recipe(photo(exif=exif(b"mine" * 4), xmp=b"<broken"), TEXT, "jpeg")
    assert (made.xmp, has_it) == (b"<broken", False)


def test_exif_that_fills_a_segment_of_a_jpeg_sends_the_recipe_into_xmp() -> None:
    full = exif(maker_note=b"\1" * 65400)
    assert given(TEXT, exif=full).exif == full
    assert given(TEXT, "webp", exif=full).xmp is None
    _, has_it = with_recipe(photo(exif=full, xmp=XMP + b" " * 65300), TEXT, "jpeg")
    assert not has_it


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
@pytest.mark.parametrize(
    "kept",
    [{}, {"exif": exif()}, {"exif": exif(b"mine" * 4)}, {"exif": exif(b"mine" * 4), "xmp": XMP}],
)
def test_a_recipe_takes_the_place_of_the_one_before(kind: str, kept: dict[str, bytes]) -> None:
    once = given(TEXT, kind, **kept)
    again, _ = with_recipe(once, OTHER, kind)
    assert recipe_text(again) == OTHER
    for old in (*again.texts, again.exif or b"", again.xmp or b""):
        assert "a < b" not in str(old)
    none, has_it = with_recipe(again, None, kind)
    assert (recipe_text(none), has_it) == (None, False)
    assert none.texts == ()
    assert none.xmp == kept.get("xmp")
    known = {k: v for k, v in tags(kept.get("exif")).items() if k != EXIF_IFD} if kept else {}
    left = {k: v for k, v in tags(none.exif).items() if k != EXIF_IFD} if none.exif else {}
    assert left == known


def test_a_recipe_in_another_kind_of_file_is_not_carried_over() -> None:
    inside = given(TEXT, "png")
    as_jpeg, _ = with_recipe(inside, OTHER, "jpeg")
    assert (recipe_text(as_jpeg), as_jpeg.texts) == (OTHER, ())


def test_texts_of_others_are_no_recipes() -> None:
    kept = photo(texts=(("hbr", "a word"), ("Title", TEXT)))
    assert recipe_text(kept) is None
    assert with_recipe(kept, None, "png")[0] is kept
