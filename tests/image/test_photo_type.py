import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from hbr.image import Photo


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tensor_and_back(scene, dtype):
    photo = Photo.from_array(scene(dtype=dtype))
    x = photo.tensor()
    assert x.dtype == torch.float32
    assert x.shape == (1, 3, 48, 64)
    assert torch.equal(
        x[0, 2, 5], torch.tensor(photo.pixels[5, :, 2] / np.iinfo(dtype).max).float()
    )
    assert np.array_equal(photo.with_pixels(x).pixels, photo.pixels)
    bits = photo.bits
    assert np.array_equal(Photo.from_tensor(x, bits=bits).pixels, photo.pixels)
    assert np.array_equal(photo.with_pixels(x[0].numpy()).pixels, photo.pixels)


def test_with_pixels_rounds_clips_and_keeps(scene, tmp_path):
    photo = Photo(pixels=scene(), exif=None, dpi=(300.0, 300.0), format="jpeg", path=tmp_path)
    x = torch.zeros(1, 3, 96, 128, dtype=torch.bfloat16, requires_grad=True) + 0.5
    x = torch.cat([x[..., :64], x[..., :64] + 7], dim=-1)
    new = photo.with_pixels(x)
    assert new.size == (96, 128)
    assert (new.pixels[:, :64] == 128).all()
    assert (new.pixels[:, 64:] == 255).all()
    assert (new.dpi, new.format, new.path) == ((300.0, 300.0), "jpeg", tmp_path)


def test_grey_stays_grey(scene):
    photo = Photo.from_array(scene(c=1))
    assert photo.mode == "grey"
    tinted = photo.tensor() * torch.tensor([1.0, 0.9, 0.8])[:, None, None]
    new = photo.with_pixels(tinted)
    assert np.ptp(new.pixels, axis=-1).max() == 0
    pure = np.asarray(
        Image.fromarray(
            np.rint(tinted[0].numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        ).convert("L")
    )
    assert np.abs(new.pixels[..., 0].astype(int) - pure).max() <= 1
    assert np.ptp(photo.as_rgb().with_pixels(tinted).pixels, axis=-1).max() > 0


def test_with_pixels_by_strips_is_the_same(scene, monkeypatch):
    photo = Photo.from_array(scene(dtype=np.uint16))
    x = 1 - photo.tensor()
    whole = photo.with_pixels(x).pixels
    monkeypatch.setattr("hbr.image.pixels.STRIP_PIXELS", 200)
    assert np.array_equal(photo.with_pixels(x).pixels, whole)


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (np.zeros((2, 3, 4, 4)), "must be"),
        (np.zeros((4, 4, 4)), "must be"),
        (np.zeros((3, 0, 4)), "must be"),
        (np.full((3, 4, 4), np.nan), "not numbers"),
    ],
)
def test_with_pixels_refuses(scene, bad, word):
    with pytest.raises(ValueError, match=word):
        Photo.from_array(scene()).with_pixels(bad)


def test_from_array_kinds(scene):
    floats = scene(dtype=np.uint16) / 65535
    assert np.array_equal(Photo.from_array(floats, bits=16).pixels, scene(dtype=np.uint16))
    assert Photo.from_array(floats).bits == 8
    assert Photo.from_array(scene(c=1)[..., 0]).mode == "grey"
    assert (Photo.from_array(np.eye(4, dtype=bool)).pixels[0, 0] == 255).all()
    for bad in (np.zeros(3), np.zeros((4, 4, 5), np.uint8), np.zeros((4, 4, 3), np.int64)):
        with pytest.raises(ValueError, match="must be"):
            Photo.from_array(bad)
    with pytest.raises(ValueError, match="pixels are"):
        Photo(pixels=np.zeros((4, 4, 3), np.float32))


def test_pil_and_back(scene):
    array = scene(c=4)
    image = Photo.from_array(array).pil()
    assert np.array_equal(np.asarray(image), array)
    assert np.array_equal(Photo.from_pil(image).pixels, array[..., :3])
    assert Photo.from_array(scene(dtype=np.uint16)).pil().mode == "RGB"


@pytest.mark.parametrize(
    ("name", "needless"),
    # of a JPEG, OpenCV says whether its data are corrupt
    [("a.webp", ["torch", "cv2", "tifffile"]), ("a.jpg", ["torch", "tifffile"])],
)
def test_importing_imports_no_torch_and_reading_needs_none(scene, save, name, needless):
    path = save(scene(), name)
    script = (
        "import sys, hbr.image as i; p = i.read_photo(sys.argv[1]);"
        "i.write_photo(p, sys.argv[1] + '.png');"
        f"assert not set({needless}) & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
