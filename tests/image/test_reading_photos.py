import io

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from hbr.image import Photo, is_photo_name, read_photo, write_photo


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("a.jpg", 6), ("a.png", 0), ("a.tif", 0), ("a.webp", 10), ("a.avif", 8), ("a.bmp", 0)],
)
def test_every_format_by_content_not_by_name(scene, save, tmp_path, name, tolerance):
    path = save(scene(), name, **({"quality": 95} if name[-3:] not in "png tif bmp" else {}))
    photo = read_photo(path)
    assert photo.size == (48, 64)
    assert (photo.bits, photo.mode, photo.alpha, photo.path) == (8, "rgb", None, path)
    assert photo.format == {"jpg": "jpeg", "tif": "tiff"}.get(name[2:], name[2:])
    assert np.abs(photo.pixels.astype(int) - scene()).mean() <= tolerance / 3
    assert np.abs(photo.pixels.astype(int) - scene()).max() <= tolerance * 4
    misnamed = path.rename(tmp_path / "b.jpg")
    assert np.array_equal(read_photo(misnamed).pixels, photo.pixels)
    with misnamed.open("rb") as file:
        assert np.array_equal(read_photo(file).pixels, photo.pixels)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.avif", "a.tif", "deep.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_reset(scene, save, raw_png, chunk, tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = orientation, "Leica"
    if name == "deep.png":
        extra = chunk(b"eXIf", exif.tobytes()[6:])
        path = tmp_path / name
        path.write_bytes(raw_png(scene(dtype=np.uint16), 2, extra))
        upright = ImageOps.exif_transpose(Image.open(path))
    else:
        path = save(scene(), name, exif=exif)
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)  # the independent answer
            upright.load()
    photo = read_photo(path)
    assert photo.size == upright.size[::-1]
    shown = (photo.pixels >> (photo.bits - 8)).astype(int)
    assert np.abs(shown - np.asarray(upright.convert("RGB"))).max() <= 1
    kept = Image.Exif()
    kept.load(photo.exif)
    assert kept.get(0x0112, 1) == 1
    assert kept[0x010F] == "Leica"
    written = write_photo(photo, tmp_path / ("out" + path.suffix))
    again = read_photo(written)
    assert again.size == photo.size
    with Image.open(written) as image:
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getexif()[0x010F] == "Leica"


def test_xmp_orientation_counts_where_exif_is_silent(scene, save):
    xmp = b'<x:xmpmeta xmlns:tiff="t"><rdf:Description tiff:Orientation="8"/></x:xmpmeta>'
    photo = read_photo(save(scene(), "a.jpg", xmp=xmp))
    assert photo.size == (64, 48)
    assert photo.xmp == xmp.replace(b'"8"', b'"1"')


def test_orientation_swaps_the_resolution(scene, save):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = read_photo(save(scene(), "a.png", exif=exif, dpi=(100, 300)))
    assert photo.dpi == pytest.approx((300, 100), abs=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("colour", "c"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_png_of_each_kind_and_depth(scene, raw_png, dtype, colour, c):
    array = scene(c=c, dtype=dtype)
    photo = read_photo(io.BytesIO(raw_png(array, colour)))
    assert photo.bits == np.iinfo(dtype).bits
    assert photo.mode == ("grey" if c < 3 else "rgb")
    assert np.array_equal(photo.pixels, array[..., :3] if c > 2 else array[..., [0, 0, 0]])
    assert (photo.alpha is not None) == (c in (2, 4))
    if c in (2, 4):
        assert np.array_equal(photo.alpha, array[..., -1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("colour", "c"), [(0, 1), (2, 3)])
def test_png_colour_key_is_alpha(scene, raw_png, chunk, dtype, colour, c):
    array = scene(c=c, dtype=dtype)
    key = chunk(b"tRNS", array[0, 0].astype(">u2").tobytes())
    photo = read_photo(io.BytesIO(raw_png(array, colour, key)))
    hidden = (array == array[0, 0]).all(-1)
    assert hidden.any()
    assert np.array_equal(photo.alpha == 0, hidden)
    assert np.array_equal(photo.pixels[~hidden][:, 0], array[~hidden][:, 0])


TIFF_LAYOUTS = [
    {},
    {"compression": "zlib"},
    {"compression": "zlib", "predictor": True},
    {"planarconfig": "separate"},
    {"tile": (16, 16)},
    {"byteorder": ">"},
    {"bigtiff": True},
    {"rowsperstrip": 7},
]


@pytest.mark.parametrize("c", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", TIFF_LAYOUTS, ids=str)
def test_deep_tiff_of_each_layout(scene, tmp_path, layout, c):
    array = scene(c=c, dtype=np.uint16)
    stored = array[..., 0] if c == 1 else array
    if "planarconfig" in layout:
        if c == 1:
            pytest.skip("one channel has no planes")
        stored = np.moveaxis(array, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored,
        photometric="rgb" if c > 2 else "minisblack",
        extrasamples=["unassalpha"] if c in (2, 4) else None,
        metadata=None,
        **layout,
    )
    photo = read_photo(tmp_path / "a.tif")
    assert photo.bits == 16
    assert np.array_equal(photo.pixels, array[..., :3] if c > 2 else array[..., [0, 0, 0]])
    if c in (2, 4):
        assert np.array_equal(photo.alpha, array[..., -1])
    else:
        assert photo.alpha is None


@pytest.mark.parametrize("c", [1, 3, 4])
def test_deep_tiff_in_lzw(scene, tmp_path, c):
    import cv2

    array = scene(c=c, dtype=np.uint16)
    stored = array[..., [2, 1, 0, 3][:c]] if c > 1 else array
    cv2.imwrite(str(tmp_path / "a.tif"), stored, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    photo = read_photo(tmp_path / "a.tif")
    assert np.array_equal(photo.pixels, array[..., :3] if c > 2 else array[..., [0, 0, 0]])


def test_premultiplied_alpha_of_8_bits_that_pillow_does_not_read(tmp_path):
    stored = np.full((3, 4, 4), (100, 50, 25, 128), np.uint8)
    stored[0] = (40, 30, 20, 255)
    tifffile.imwrite(
        *(tmp_path / "a.tif", stored),
        photometric="rgb",
        extrasamples=["assocalpha"],
        bigtiff=True,
        byteorder=">",
        metadata=None,
    )
    photo = read_photo(tmp_path / "a.tif")
    assert photo.pixels[0, 0].tolist() == [40, 30, 20]
    assert photo.pixels[1, 0].tolist() == [199, 100, 50]
    assert photo.alpha[:, 0].tolist() == [255, 128, 128]


def test_tiff_white_is_zero_and_premultiplied_alpha(scene, tmp_path):
    grey = scene(c=1, dtype=np.uint16)[..., 0]
    tifffile.imwrite(tmp_path / "w.tif", 65535 - grey, photometric="miniswhite", metadata=None)
    assert np.array_equal(read_photo(tmp_path / "w.tif").pixels[..., 0], grey)
    straight = scene(c=4, dtype=np.uint16)
    alpha = straight[..., 3:].astype(np.uint64)
    stored = np.dstack([straight[..., :3] * alpha // 65535, alpha]).astype(np.uint16)
    tifffile.imwrite(
        tmp_path / "p.tif", stored, photometric="rgb", extrasamples=["assocalpha"], metadata=None
    )
    photo = read_photo(tmp_path / "p.tif")
    assert np.abs(photo.pixels.astype(int) - straight[..., :3]).max() <= 4


def test_tiff_of_floats_in_the_unit_range_counts_as_16_bits(scene, tmp_path):
    array = scene(dtype=np.uint16)
    floats = (array / 65535).astype(np.float32)
    tifffile.imwrite(tmp_path / "f.tif", floats, photometric="rgb", metadata=None)
    photo = read_photo(tmp_path / "f.tif")
    assert photo.bits == 16
    assert np.array_equal(photo.pixels, array)


def test_tiff_preview_is_no_second_page(scene, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        tif.write(scene(), photometric="rgb", metadata=None)
        tif.write(scene(12, 16), photometric="rgb", metadata=None, subfiletype=1)
    assert np.array_equal(read_photo(tmp_path / "a.tif").pixels, scene())


def test_grey_palette_and_bilevel(scene, save, tmp_path):
    grey = read_photo(save(scene(c=1)[..., 0], "grey.jpg", quality=95))
    assert grey.mode == "grey"
    assert np.ptp(grey.pixels, axis=-1).max() == 0
    with Image.open(write_photo(grey, tmp_path / "grey-out.jpg")) as image:
        assert image.mode == "L"
    with Image.open(write_photo(grey.as_rgb(), tmp_path / "rgb-out.jpg")) as image:
        assert image.mode == "RGB"
    bilevel = Image.fromarray(scene(c=1)[..., 0]).convert("1")
    photo = read_photo(save(bilevel, "b.png"))
    assert np.array_equal(photo.pixels[..., 0], np.asarray(bilevel) * 255)

    palette = Image.fromarray(scene()).quantize(16)
    photo = read_photo(save(palette, "p.png"))
    assert photo.mode == "palette"
    assert np.array_equal(photo.pixels, np.asarray(palette.convert("RGB")))
    with Image.open(write_photo(photo, tmp_path / "p-out.png")) as image:
        assert image.mode == "RGB"
    clear = int(np.asarray(palette)[0, 0])
    photo = read_photo(save(palette, "t.png", transparency=clear))
    assert np.array_equal(photo.alpha == 0, np.asarray(palette) == clear)


def test_cmyk_jpeg_becomes_rgb(scene, save, tmp_path):
    path = save(Image.fromarray(scene()).convert("CMYK"), "c.jpg", quality=95)
    photo = read_photo(path)
    # Pillow writes the Adobe marker and inverts, as Photoshop does; read plainly it is a negative.
    assert b"Adobe" in path.read_bytes()[:400]
    assert (photo.mode, photo.icc) == ("cmyk", None)
    # Pillow's inks are pure complements and those of a press are not, but no plane is turned round.
    means = photo.pixels.reshape(-1, 3).mean(0) - scene().reshape(-1, 3).mean(0)
    assert np.abs(means).max() < 35
    for c in range(3):
        seen, meant = photo.pixels[..., c].ravel(), scene()[..., c].ravel()
        assert np.corrcoef(seen, meant)[0, 1] > 0.8
    with Image.open(write_photo(photo, tmp_path / "out.jpg")) as image:
        assert image.mode == "RGB"


def test_cmyk_goes_through_its_profile(save, ink_profile, caplog):
    inks = np.zeros((32, 64, 4), np.uint8)
    inks[:, 32:, 0] = 255
    image = Image.fromarray(inks, mode="CMYK")
    photo = read_photo(save(image, "c.jpg", icc_profile=ink_profile, quality=95))
    assert not caplog.text
    assert np.abs(photo.pixels[16, 8].astype(int) - (255, 255, 255)).max() <= 4
    assert np.abs(photo.pixels[16, 56].astype(int) - (255, 0, 0)).max() <= 25
    assert photo.icc is None


def test_cmyk_with_a_profile_of_something_else_is_still_read(scene, save, caplog):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = save(Image.fromarray(scene()).convert("CMYK"), "c.jpg", icc_profile=icc, quality=95)
    plain = read_photo(save(Image.fromarray(scene()).convert("CMYK"), "d.jpg", quality=95))
    assert (read_photo(path).pixels == plain.pixels).all()
    assert "colour profile is dropped" in caplog.text


def test_phone_mpo_gives_its_main_picture(scene, save):
    second = Image.fromarray(np.zeros((48, 64, 3), np.uint8))
    path = save(scene(), "a.mpo", format="MPO", save_all=True, append_images=[second], quality=95)
    photo = read_photo(path)
    assert photo.format == "jpeg"
    assert np.abs(photo.pixels.astype(int) - scene()).mean() < 3


def test_one_pixel_and_one_row(save):
    for shape in ((1, 1, 3), (1, 500, 3), (500, 1, 3)):
        for name in ("a.png", "a.jpg", "a.tif"):
            assert read_photo(save(np.full(shape, 77, np.uint8), name)).size == shape[:2]


def test_a_large_tiff_is_not_stopped_by_pillow(save, monkeypatch, scene):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for name in ("a.tif", "a.png", "a.jpg"):
        path = save(scene(), name)
        assert read_photo(path).size == (48, 64)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_photo_names():
    assert all(map(is_photo_name, ["a.JPG", "d/b.jpeg", "c.png", "c.tiff", "c.webp", "c.mpo"]))
    assert not any(map(is_photo_name, ["a.gif", "a.txt", "jpg", ".hbr-1.png", "a.jp2", "a.json"]))


def test_pil_images_are_read_like_files(scene):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(scene(c=4))
    image.info["exif"] = exif.tobytes()
    photo = Photo.from_pil(image)
    assert photo.size == (64, 48)
    assert np.array_equal(photo.pixels, np.rot90(scene(), -1))
    deep = Photo.from_pil(Image.fromarray(scene(c=1, dtype=np.uint16)[..., 0]))
    assert (deep.bits, deep.mode) == (16, "grey")
