"""What a new file makes untrue is mended, or goes with what it described."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from hbr.image import read_photo, write_photo
from hbr.image.untrue import Renewal, renewed_exif, renewed_xmp

HEAD = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
)
SPACES = {
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "OpCamera": "http://ns.oplus.com/photos/1.0/camera/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GImage": "http://ns.google.com/photos/1.0/image/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "mwg": "http://www.metadataworkinggroup.com/schemas/regions/",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    "app": "http://ns.apple.com/HDRGainMap/1.0/",
}


def packet(attributes: str = "", inside: str = "", wrapped: bool = False) -> bytes:
    used = [p for p in SPACES if f"{p}:" in attributes + inside]
    names = " ".join(f'xmlns:{p}="{SPACES[p]}"' for p in used)
    text = f'{HEAD}<rdf:Description rdf:about="" {names} {attributes}>{inside}</rdf:Description>'
    text += "</rdf:RDF></x:xmpmeta>"
    if wrapped:
        text = (
            f'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>{text}{" " * 99}<?xpacket end="w"?>'
        )
    return text.encode()


SAME = Renewal(1, (48, 64), (48, 64))
CLAIMS = [
    ('GCamera:MotionPhoto="1" GCamera:MotionPhotoPresentationTimestampUs="5"', "a video"),
    ('GCamera:MicroVideo="1" GCamera:MicroVideoOffset="5000"', "a video"),
    ('OpCamera:MotionPhotoOwner="x" OpCamera:VideoLength="99"', "a video"),
    ('hdrgm:Version="1.0" hdrgm:GainMapMax="2"', "a gain map"),
    ('app:HDRGainMapVersion="65536"', "a gain map"),
    ('GDepth:Format="RangeInverse" GDepth:Data="aaaa"', "a depth map"),
    ('GImage:Mime="image/jpeg" GImage:Data="aaaa"', "the original picture"),
    ('xmpNote:HasExtendedXMP="0123"', "extended XMP"),
]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("claims", "kind"), CLAIMS)
def test_claims_of_what_is_gone_go(claims, kind, wrapped):
    as_elements = "".join(
        f"<{name}>{value.strip(chr(34))}</{name}>"
        for name, value in (part.split("=") for part in claims.split())
    )
    for xmp in (
        packet(claims + ' dc:format="image/jpeg"', wrapped=wrapped),
        packet('dc:format="image/jpeg"', as_elements, wrapped=wrapped),
    ):
        new, lost = renewed_xmp(xmp, SAME)
        assert lost == {kind}
        assert not [part for part in claims.split() if part.split("=")[0].encode() in new]
        assert b'dc:format="image/jpeg"' in new
        assert (b"<?xpacket" in new) == wrapped
        assert renewed_xmp(new, SAME) == (new, set())


def test_a_directory_of_embedded_files_goes():
    inside = (
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
        'Item:Semantic="MotionPhoto" Item:Length="99"/></rdf:li></rdf:Seq></Container:Directory>'
        "<dc:title>at the lake</dc:title>"
    )
    new, _ = renewed_xmp(packet('GCamera:MotionPhoto="1"', inside), SAME)
    assert b"Container:Directory" not in new
    assert b"at the lake" in new


def test_what_is_true_stays_to_the_byte():
    xmp = packet(
        'dc:format="image/jpeg" xmp:Rating="5"', "<dc:title>Größe &amp; 日本</dc:title>", True
    )
    assert renewed_xmp(xmp, SAME) == (xmp, set())
    assert renewed_xmp(xmp + b"\0", SAME) == (xmp + b"\0", set())


def test_sizes_and_thumbnails():
    attributes = 'tiff:ImageWidth="64" exif:PixelXDimension="64" GPano:FullPanoWidthPixels="1000"'
    inside = (
        "<tiff:ImageLength>48</tiff:ImageLength><exif:PixelYDimension>48</exif:PixelYDimension>"
        "<GPano:CroppedAreaTopPixels>100</GPano:CroppedAreaTopPixels>"
        "<xmp:Thumbnails><rdf:Alt><rdf:li>aGVsbG8=</rdf:li></rdf:Alt></xmp:Thumbnails>"
    )
    new, lost = renewed_xmp(packet(attributes, inside), Renewal(1, (48, 64), (144, 128)))
    assert lost == set()
    for part in (
        b'ImageWidth="128"',
        b'PixelXDimension="128"',
        b"ImageLength>144<",
        b"PixelYDimension>144<",
        b'FullPanoWidthPixels="2000"',
        b"CroppedAreaTopPixels>300<",
    ):
        assert part in new, part
    assert b"Thumbnails" not in new


REGION = (
    '<mwg:Regions><mwg:AppliedToDimensions stDim:w="64" stDim:h="48" stDim:unit="pixel"/>'
    '<mwg:Area stArea:x="0.25" stArea:y="0.1" stArea:w="0.2" stArea:h="0.05"/></mwg:Regions>'
)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_turn_with_the_picture(orientation, scene, save):
    """A mark painted where the region is must lie where the region is afterwards."""
    picture = np.zeros((48, 64, 3), np.uint8)
    left, top, right, bottom = 0.25 - 0.1, 0.1 - 0.025, 0.25 + 0.1, 0.1 + 0.025
    picture[round(top * 48) : round(bottom * 48), round(left * 64) : round(right * 64)] = 255
    mark = f'MPReg:Rectangle="{left}, {top}, {right - left}, {bottom - top}"'
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(picture, "a.png", exif=exif)
    data = read_photo(path)
    xmp, _ = renewed_xmp(packet(mark, REGION), Renewal(orientation, (48, 64), data.size))
    ys, xs = np.nonzero(data.pixels[..., 0])
    height, width = data.size
    found = [float(v) for v in value_of(xmp, b"MPReg:Rectangle").split(",")]
    edges = xs.min() / width, ys.min() / height
    assert found[:2] == pytest.approx(edges, abs=0.02)
    x, y = (float(value_of(xmp, b"stArea:" + n)) for n in (b"x", b"y"))
    middle = (xs.min() + xs.max() + 1) / 2 / width, (ys.min() + ys.max() + 1) / 2 / height
    assert (x, y) == pytest.approx(middle, abs=0.02)
    assert value_of(xmp, b"stDim:w") == str(width)


def value_of(xmp: bytes, name: bytes) -> str:
    return xmp.split(name + b'="')[1].split(b'"')[0].decode()


@pytest.mark.parametrize("nonsense", [b"<x", b"no xml", b"<a>" * 5000, b"\xff\xfe", b"<x:y/>"])
def test_broken_xmp(nonsense):
    assert renewed_xmp(nonsense, SAME)[1] in (set(), {"broken XMP"})
    claiming = nonsense + b" hdrgm MotionPhoto"
    new, _ = renewed_xmp(claiming, SAME)
    assert new is None or b"MotionPhoto" not in new or nonsense == b"<x:y/>"


def test_entities_are_not_expanded():
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><x>&b;</x>'
    assert renewed_xmp(bomb, SAME) == (None, {"broken XMP"})


def exif_with(inner: dict[int, object], outer: dict[int, object]) -> bytes:
    exif = Image.Exif()
    for tag, value in outer.items():
        exif[tag] = value
    exif[0x8769] = inner
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_sizes_of_exif_wherever_they_stand():
    data = exif_with({0xA002: 64, 0xA003: 48, 0xA005: {0x1001: 64, 0x1002: 48}}, {256: 64, 257: 48})
    exif = Image.Exif()
    exif.load(renewed_exif(data, Renewal(1, (48, 64), (96, 128))))
    inner = exif.get_ifd(0x8769)
    assert (exif[256], exif[257], inner[0xA002], inner[0xA003]) == (128, 96, 128, 96)
    assert exif.get_ifd(0xA005)[0x1001] == 128


@pytest.mark.parametrize(
    ("orientation", "area"),
    [
        (1, (20, 10, 8, 4)),
        (3, (128 - 20, 96 - 10, 8, 4)),
        (6, (96 - 10, 20, 4, 8)),
        (8, (10, 128 - 20, 4, 8)),
    ],
)
def test_the_place_of_the_subject(orientation, area):
    data = exif_with({0x9214: (20, 10, 8, 4), 0xA214: (20, 10)}, {0x0112: orientation})
    size = (128, 96) if orientation > 4 else (96, 128)
    inner = Image.Exif()
    inner.load(renewed_exif(data, Renewal(orientation, (96, 128), size)))
    assert inner.get_ifd(0x8769)[0x9214] == area
    assert inner.get_ifd(0x8769)[0xA214] == area[:2]
    inner.load(renewed_exif(data, Renewal(orientation, (96, 128), (size[0] * 2, size[1] * 2))))
    assert inner.get_ifd(0x8769)[0x9214] == tuple(2 * v for v in area)


def test_a_motion_photo_through_read_and_write(scene, tmp_path, caplog):
    xmp = packet('GCamera:MotionPhoto="1" hdrgm:Version="1.0"')
    buffer = io.BytesIO()
    exif = exif_with({0xA002: 64, 0xA003: 48}, {0x8897: b"\1", 0x0112: 6})
    Image.fromarray(scene()).save(buffer, "jpeg", xmp=xmp, exif=b"Exif\0\0" + exif)
    video = struct.pack(">I", 24) + b"ftypmp42" + b"\0" * 99
    photo = read_photo(io.BytesIO(buffer.getvalue() + video))
    larger = photo.with_pixels(np.zeros((3, 128, 96), np.float32))
    data = write_photo(larger, tmp_path / "a.jpg").read_bytes()
    assert b"ftypmp42" not in data
    assert b"MotionPhoto" not in data
    assert b"hdrgm:Version" not in data
    (line,) = caplog.messages
    assert "a gain map" in line
    assert "a video" in line
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.getexif().get_ifd(0x8769)[0xA002] == 96
        assert bytes(image.getexif()[0x8897])[:1] == b"\0"
