"""What the numbers of a file mean, where no profile, or not the profile alone, says it."""

import dataclasses
import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, JpegImagePlugin

from hbr.image import Photo, PhotoError, read_photo, write_photo
from hbr.image.boxes import bit_depth, main_properties
from hbr.image.colour import load_profile

P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def gama(value: int) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", value)


def chrm(values: tuple[int, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *values)


def cicp(*values: int) -> tuple[bytes, bytes]:
    return b"cICP", bytes(values)


@pytest.fixture
def png_of(raw_png, chunk, scene):
    """A PNG of `scene` with chunks before its pixels, as a file."""

    def make(*extra: tuple[bytes, bytes], dtype: type = np.uint8, array=None, colour: int = 2):
        array = scene(dtype=dtype) if array is None else array
        return io.BytesIO(raw_png(array, colour, *[chunk(*part) for part in extra]))

    return make


def decoded(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] → light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize(
    "stated", [[gama(100_000)], [cicp(1, 8, 0, 1)], [gama(100_000), chrm(SRGB)]]
)
def test_linear_light_becomes_srgb(scene, png_of, tmp_path, stated):
    meant = scene(dtype=np.uint16)
    linear = np.rint(decoded(meant / 65535) * 65535).astype(np.uint16)
    photo = read_photo(png_of(*stated, array=linear))
    assert np.abs(photo.pixels.astype(int) - meant).max() <= 64
    # No colour is outside sRGB, so that viewers without colour management show it right too.
    assert photo.icc is None
    out = write_photo(photo, tmp_path / "a.png")
    assert np.abs(read_photo(out).pixels.astype(int) - meant).max() <= 64


def test_a_grey_gamma_counts_too(scene, png_of):
    meant = scene(c=1, dtype=np.uint16)
    encoded = np.rint(decoded(meant / 65535) ** (1 / 1.8) * 65535).astype(np.uint16)
    photo = read_photo(png_of(gama(55556), array=encoded, colour=0))
    assert photo.mode == "grey"
    assert np.abs(photo.pixels[..., :1].astype(int) - meant).max() <= 64


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("stated", [[cicp(12, 13, 0, 1)], [gama(45455), chrm(P3)], [chrm(P3)]])
def test_a_wide_gamut_is_carried_over_as_a_profile(
    scene, png_of, p3_profile, tmp_path, dtype, stated
):
    file = png_of(*stated, dtype=dtype)
    expected = load_profile(p3_profile, "RGB").to_srgb(scene(dtype=dtype))
    photo = read_photo(file)
    assert np.abs(photo.pixels / np.iinfo(dtype).max - expected).max() < 1.5 / 255
    assert not (photo.pixels == scene(dtype=dtype)).all()
    out = write_photo(photo, tmp_path / "a.png")
    with Image.open(out) as image:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
    red = profile.profile.red_colorant[0]
    assert red == pytest.approx((0.5151, 0.2412, -0.0011), abs=3e-3)
    assert (read_photo(out).encoded()[0] == scene(dtype=dtype)).all(), "the numbers stay"


@pytest.mark.parametrize(
    "stated",
    [
        [],
        [(b"sRGB", b"\0"), gama(100_000)],
        [gama(45455)],
        [gama(45455), chrm(SRGB)],
        [cicp(1, 13, 0, 1)],
        [cicp(1, 1, 0, 1)],
        [cicp(2, 2, 0, 1)],
        [cicp(1, 13, 0, 1), gama(100_000), chrm(P3)],
        [gama(0)],
    ],
)
def test_srgb_in_other_words_changes_nothing(scene, png_of, caplog, stated):
    photo = read_photo(png_of(*stated))
    assert (photo.pixels == scene()).all()
    assert photo.icc is None
    assert not caplog.text


def test_code_points_count_before_a_profile_in_png(scene, png_of, rgb_profile, save, chunks_of):
    path = save(scene(), "a.png", icc_profile=rgb_profile())
    iccp = next(part for part in chunks_of(path.read_bytes()) if part[0] == b"iCCP")
    photo = read_photo(png_of(iccp, cicp(1, 13, 0, 1)))
    assert (photo.pixels == scene()).all()
    assert photo.icc is None


def test_a_narrow_range_is_widened(scene, png_of):
    meant = scene()
    narrow = np.rint(meant / 255 * 219 + 16).astype(np.uint8)
    photo = read_photo(png_of(cicp(1, 13, 0, 0), array=narrow))
    assert np.abs(photo.pixels.astype(int) - meant).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("transfer", "word"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_and_called_so(png_of, dtype, transfer, word):
    with pytest.raises(PhotoError, match=f"HDR picture \\({word}\\).*save an SDR version"):
        read_photo(png_of(cicp(9, transfer, 0, 1), dtype=dtype))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
def test_a_profile_that_says_hdr_is_refused(scene, save, rgb_profile, suffix):
    icc = bytearray(rgb_profile())
    # In place of the white point, which nothing here reads: code points, as ICC 4.4 has them.
    at = icc.index(b"wtpt", 128)
    icc[at : at + 4] = b"cicp"
    (place,) = struct.unpack_from(">I", icc, at + 4)
    icc[place : place + 12] = b"cicp\0\0\0\0" + bytes([9, 16, 0, 1])
    with pytest.raises(PhotoError, match=r"HDR picture \(PQ\)"):
        read_photo(save(scene(), "a" + suffix, icc_profile=bytes(icc)))


def test_unknown_code_points_are_a_warning_and_strictly_an_error(scene, png_of, caplog):
    photo = read_photo(png_of(cicp(99, 13, 0, 1)))
    assert (photo.pixels == scene()).all()
    assert "colour primaries 99" in photo.warnings[0]
    assert "colour primaries 99" in caplog.text
    with pytest.raises(PhotoError, match=r"primaries 99.*--strict"):
        read_photo(png_of(cicp(99, 13, 0, 1)), strict=True)


def test_nonsense_is_dropped_with_a_warning(scene, png_of):
    on_a_line = (31270, 32900, 10000, 10000, 20000, 20000, 30000, 30000)
    for stated in (gama(1), chrm(on_a_line), chrm((0, 0, 64000, 33000, 30000, 60000, 15000, 6000))):
        photo = read_photo(png_of(stated))
        assert (photo.pixels == scene()).all()
        assert "profile is dropped" in photo.warnings[0]


def exif_of(color_space: int | None, interoperability: str | None) -> bytes:
    exif = Image.Exif()
    inner = {0x829D: 2.8}
    if color_space is not None:
        inner[0xA001] = color_space
    if interoperability:
        inner[0xA005] = {1: interoperability}
    exif[0x8769] = inner
    return exif.tobytes()


@pytest.mark.parametrize(("space", "index"), [(0xFFFF, "R03"), (2, None)])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_adobe_rgb_by_exif_alone(scene, save, rgb_profile, space, index, suffix):
    options = {"quality": 100, "lossless": True, "subsampling": 0}
    path = save(scene(), "a" + suffix, exif=exif_of(space, index), **options)
    plain = read_photo(save(scene(), "b" + suffix, **options)).pixels
    expected = load_profile(rgb_profile(), "RGB").to_srgb(plain)
    photo = read_photo(path)
    assert np.abs(photo.pixels / 255 - expected).max() < 1.5 / 255
    assert np.abs(photo.pixels.astype(int) - plain).max() > 10
    assert photo.icc is not None
    assert not photo.warnings


def test_exif_without_a_profile_otherwise(scene, save, rgb_profile):
    assert not read_photo(save(scene(), "a.png", exif=exif_of(1, "R98"))).warnings
    assert not read_photo(save(scene(), "b.png", exif=exif_of(None, None))).warnings
    photo = read_photo(save(scene(), "c.png", exif=exif_of(0xFFFF, None)))
    assert "taken as sRGB" in photo.warnings[0]
    assert (photo.pixels == scene()).all()
    kept = read_photo(
        save(scene(), "d.png", exif=exif_of(0xFFFF, "R03"), icc_profile=rgb_profile())
    )
    assert kept.icc == rgb_profile(), "a profile counts before EXIF"


def test_primaries_of_a_tiff(scene, tmp_path, p3_profile):
    white = (3127, 10000, 3290, 10000)
    primaries = (68, 100, 32, 100, 265, 1000, 69, 100, 15, 100, 6, 100)
    tags = [(318, 5, 2, white, True), (319, 5, 6, primaries, True)]
    for dtype in (np.uint8, np.uint16):
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, scene(dtype=dtype), photometric="rgb", extratags=tags, metadata=None)
        expected = load_profile(p3_profile, "RGB").to_srgb(scene(dtype=dtype))
        photo = read_photo(path)
        assert np.abs(photo.pixels / np.iinfo(dtype).max - expected).max() < 1.5 / 255


def bmp_of(array: np.ndarray, kind: bytes, rest: bytes = b"", profile: bytes = b"") -> bytes:
    """A BMP of version 5: colour space, end points, gammas, and a profile behind the pixels."""
    h, w = array.shape[:2]
    pixels = array[::-1, :, ::-1].tobytes()
    assert w % 4 == 0
    head = struct.pack("<IiiHHIIiiII", 124, w, h, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    head += b"\0" * 16 + kind + rest.ljust(48, b"\0")
    head += struct.pack("<IIII", 4, 124 + len(pixels) if profile else 0, len(profile), 0)
    start = struct.pack("<2sIHHI", b"BM", 14 + 124 + len(pixels) + len(profile), 0, 0, 14 + 124)
    return start + head + pixels + profile


def test_colours_of_a_bmp(scene, rgb_profile, p3_profile):
    assert (read_photo(io.BytesIO(bmp_of(scene(), b"BGRs"))).pixels == scene()).all()
    photo = read_photo(io.BytesIO(bmp_of(scene(), b"DEBM", profile=rgb_profile())))
    assert photo.icc == rgb_profile()
    # X, Y, Z of red, green and blue of Display P3, and a gamma of 2.2
    ends = [0.4866, 0.2290, 0.0, 0.2657, 0.6917, 0.0451, 0.1982, 0.0793, 1.0439]
    rest = struct.pack("<9I3I", *(round(v * 2**30) for v in ends), *[round(2.2 * 65536)] * 3)
    photo = read_photo(io.BytesIO(bmp_of(scene(), b"\0\0\0\0", rest)))
    red = struct.unpack_from(">3i", photo.icc, photo.icc.index(b"XYZ ", 300) + 8)
    assert photo.icc is not None
    assert np.abs(photo.pixels.astype(int) - scene()).max() > 10
    assert len(red) == 3
    assert (read_photo(io.BytesIO(bmp_of(scene(), b"\0\0\0\0"))).pixels == scene()).all()


def nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF with other code points in its colour box."""
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]


def test_code_points_of_an_avif(scene, save, p3_profile, tmp_path):
    data = save(scene(), "a.avif", quality=100, subsampling="4:4:4").read_bytes()
    plain = read_photo(io.BytesIO(data))
    assert plain.icc is None
    photo = read_photo(io.BytesIO(nclx(data, 12, 13)))
    expected = load_profile(p3_profile, "RGB").to_srgb(plain.pixels)
    assert np.abs(photo.pixels / 255 - expected).max() < 1.5 / 255
    out = read_photo(write_photo(photo, tmp_path / "b.avif"))
    assert out.icc == photo.icc
    for transfer, word in ((16, "PQ"), (18, "HLG")):
        with pytest.raises(PhotoError, match=word):
            read_photo(io.BytesIO(nclx(data, 9, transfer)))


@pytest.mark.parametrize("bits", [10, 12])
def test_the_depth_of_an_avif_is_kept(scene, bits):
    import cv2

    meant = scene(96, 128, dtype=np.uint16)
    settings = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    done, data = cv2.imencode(".avif", meant[..., ::-1] >> (16 - bits), settings)
    assert done
    photo = read_photo(io.BytesIO(data.tobytes()))
    assert photo.bits == 16
    error = np.abs(photo.pixels.astype(int) - meant)
    assert error.mean() < 65535 / 255 / 3, "closer than 8 bits could be"
    assert (photo.pixels % 257 != 0).mean() > 0.5, "values between those of 8 bits"


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("c", [3, 4])
def test_an_avif_of_more_bits_is_written_as_one(scene, tmp_path, p3_profile, caplog, bits, c):
    exif = Image.Exif()
    exif[0x010F] = "ACME"
    photo = Photo.from_array(scene(96, 128, c=c, dtype=np.uint16))
    kept = {"exif": exif.tobytes()[6:], "xmp": b"<x/>", "icc": p3_profile}
    photo = dataclasses.replace(photo, format="avif", avif_bits=bits, **kept)
    out = write_photo(photo, tmp_path / "a.avif")
    assert bit_depth(main_properties(out.read_bytes())) == bits
    again = read_photo(out)
    assert (again.bits, again.avif_bits) == (16, bits)
    assert (again.exif[-6:], again.xmp, again.icc) == (b"ACME\0\0", b"<x/>", p3_profile)
    error = np.abs(again.encoded()[0].astype(int) - photo.encoded()[0])
    assert error.mean() < 65535 / 255 / 2, "closer than 8 bits could be"
    if c == 4:
        assert np.abs(again.alpha.astype(int) - photo.alpha).mean() < 65535 / 255
    with Image.open(out) as image:
        assert np.abs(np.asarray(image)[..., :3] - photo.encoded()[0] / 257).mean() < 2
    assert not caplog.text


def test_a_grey_avif_of_more_bits(scene, tmp_path):
    photo = Photo.from_array(scene(96, 128, c=1, dtype=np.uint16))
    out = write_photo(dataclasses.replace(photo, format="avif", avif_bits=10), tmp_path / "a.avif")
    assert np.abs(read_photo(out).pixels.astype(int) - photo.pixels).mean() < 65535 / 255


# Solid inks, overprints and tones of FOGRA39 as they are shown in sRGB (printers' common values)
PRINTED = [
    ((0, 0, 0, 0), (255, 255, 255)),
    ((255, 0, 0, 0), (0, 158, 224)),
    ((0, 255, 0, 0), (230, 0, 126)),
    ((0, 0, 255, 0), (255, 237, 0)),
    ((0, 255, 255, 0), (227, 6, 19)),
    ((255, 0, 255, 0), (0, 150, 64)),
    ((255, 255, 0, 0), (49, 39, 131)),
    ((0, 0, 0, 255), (29, 29, 27)),
    ((0, 0, 0, 128), (157, 157, 156)),
    ((128, 0, 0, 0), (131, 208, 245)),
    ((0, 128, 0, 0), (241, 158, 194)),
]


@pytest.mark.parametrize("suffix", [".tif", ".jpg"])
def test_cmyk_without_a_profile_is_a_press(save, caplog, suffix):
    image = Image.new("CMYK", (16 * len(PRINTED), 16))
    for i, (inks, _) in enumerate(PRINTED):
        image.paste(inks, (16 * i, 0, 16 * i + 16, 16))
    photo = read_photo(save(image, "a" + suffix, **({"quality": 100} if suffix == ".jpg" else {})))
    found = photo.pixels[8, 8::16].astype(int)
    assert np.abs(found - [shown for _, shown in PRINTED]).max() <= 26
    assert "CMYK has no profile" in photo.warnings[0]
    assert "CMYK has no profile" in caplog.text


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_that_overshoot_by_rounding_are_clipped(scene, tmp_path, dtype):
    values = (scene() / 255).astype(dtype)
    values[0, 0], values[1, 1] = 1.00004, -0.00003
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", metadata=None)
    photo = read_photo(tmp_path / "a.tif")
    assert (photo.pixels[0, 0] == 65535).all()
    assert (photo.pixels[1, 1] == 0).all()
    values[0, 0] = 1.001
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", metadata=None)
    with pytest.raises(PhotoError, match=r"from -3e-05 to 1\.001"):
        read_photo(tmp_path / "a.tif")


def test_the_short_way_of_the_curation_sees_the_same_colours(scene, save):
    from hbr.curation.pipeline.decoding import decode

    path = save(scene(), "a.jpg", exif=exif_of(0xFFFF, "R03"), quality=95)
    found = decode(path.read_bytes(), "a.jpg", max_pixels=1_000_000).pixels
    assert (found == read_photo(path).pixels).all()
    with JpegImagePlugin.JpegImageFile(path) as image:
        assert np.abs(found.astype(int) - np.asarray(image)).max() > 10


def test_a_pil_image_keeps_what_it_knows(scene, rgb_profile):
    image = Image.fromarray(scene())
    image.info["icc_profile"] = rgb_profile()
    assert Photo.from_pil(image).icc == rgb_profile()
