import dataclasses
import hashlib
import io
import json
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch

import hbr
import toy_models
from hbr.image import Photo, PhotoError, read_photo, write_photo
from hbr.models import WeightsError, loading
from hbr.restoration import Restored, Restorer
from hbr.restoration.pixels.inputs import as_photo, resized_pixels
from hbr.restoration.settings import RestoreSettings
from hbr.weights import catalogue


@pytest.fixture
def same(identity):
    return Restorer(identity(), name="same")


@pytest.fixture(scope="module")
def toy_file(tmp_path_factory):
    """A model file of the real class, with random weights."""
    return toy_models.write(tmp_path_factory.mktemp("weights") / "toy.safetensors")


def noise(*shape, dtype=np.uint8):
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def test_a_network_of_convolutions_loads_no_library_of_other_models(tmp_path):
    file = toy_models.write_rrdbnet(tmp_path / "toy.safetensors")
    code = (
        "import sys, hbr, numpy\n"
        "hbr.Restorer.from_pretrained(sys.argv[1], 'cpu')(numpy.zeros((32, 32, 3), 'uint8'))\n"
        "print(*{'diffusers', 'transformers', 'peft', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_every_kind_of_input_gives_the_same_photo(same, tmp_path):
    pixels = noise(40, 30, 3)
    path = write_photo(Photo.from_array(pixels), tmp_path / "in.png")
    floats = pixels.astype(np.float32) / 255
    tensor = torch.from_numpy(np.moveaxis(floats, -1, 0).copy())
    inputs = [path, str(path), PIL.Image.fromarray(pixels), pixels, Photo.from_array(pixels)]
    for given in inputs:
        np.testing.assert_array_equal(same(given).pixels, pixels)
    for given in [floats, floats.astype(np.float64), tensor, tensor[None]]:
        np.testing.assert_array_equal(same(given).pixels, pixels.astype(np.uint16) * 257)
    deep = noise(40, 30, 3, dtype=np.uint16)
    np.testing.assert_array_equal(same(deep).pixels, deep)


def test_grey_and_alpha_arrays_are_taken(same):
    grey = same(noise(40, 30)).photo
    assert grey.mode == "grey"
    photo = same(noise(40, 30, 4), scale=2).photo
    assert photo.alpha is not None
    assert photo.alpha.shape == (80, 60)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"the photo is a NoneType; it must be a path"),
        ([[0, 0], [0, 0]], r"the photo is a list"),
        (np.zeros((4, 4, 3), np.int64), r"the array is int64"),
        (np.zeros((4, 4, 5), np.uint8), r"the array is \[4, 4, 5\]"),
        (np.zeros((0, 4, 3), np.float32), r"the array is \[0, 4, 3\]"),
        (np.full((4, 4, 3), 255.0), r"from 255 to 255; floats must be in \[0, 1\]"),
        (np.full((4, 4, 3), -0.5), r"from -0.5"),
        (np.full((4, 4, 3), np.nan), r"not numbers"),
        (np.full((4, 4, 3), np.inf), r"not numbers"),
        (torch.zeros(2, 3, 4, 4), r"\[2, 3, 4, 4\]; they must be \[3, h, w\] or \[1, 3, h, w\]"),
        (torch.zeros(4, 4), r"\[4, 4\]"),
        (torch.zeros(1, 1, 3, 4, 4), r"\[1, 1, 3, 4, 4\]"),
        (torch.zeros(4, 4, 3), r"\[4, 4, 3\]"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"the tensor is torch.uint8"),
        (torch.full((3, 4, 4), torch.nan), r"the tensor contains values that are not numbers"),
    ],
)
def test_what_is_no_picture_is_one_clear_line(same, given, message):
    with pytest.raises(ValueError, match=message) as caught:
        same(given)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(same, tmp_path):
    with pytest.raises(PhotoError, match=r"missing\.jpg"):
        same(tmp_path / "missing.jpg")
    path = write_photo(Photo.from_array(noise(40, 30, 3)), tmp_path / "in.png")
    with pytest.raises(PhotoError):
        same(path, max_pixels=1000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0.1}, r"scale is 0.1; it must be 0.25 to 8"),
        ({"scale": float("nan")}, r"scale is nan"),
        ({"scale": 9}, r"scale is 9"),
        ({"color": "sepia"}, r"color is 'sepia'; it must be one of auto, wavelet, adain, none"),
        ({"tile": 8}, r"tile is 8; it must be auto, 0 or at least 16"),
        ({"tile": "big"}, r"tile is 'big'; it must be auto or a whole number from 0"),
        ({"batch": 0}, r"batch is 0; it must be auto or 1 or more"),
        ({"seed": "x"}, r"seed is 'x'; it must be a whole number"),
        ({"scale": 8, "max_pixels": 5000}, r"at scale 8 the photo has 240×320 pixels"),
        ({"size": 320, "max_pixels": 5000}, r"at size 320 the photo has 240×320 pixels"),
        ({"size": 321}, r"of 30×40 pixels would be enlarged 8.03 times, and 8 is the limit"),
        ({"size": 0}, r"size is 0; it must be a whole number from 1"),
        (
            {"size": 50, "scale": 2},
            r"size is 50; it must be .* from 1, without a scale",
        ),
    ],
)
def test_settings_are_checked_before_any_work(same, settings, message):
    with pytest.raises(ValueError, match=message):
        same(noise(40, 30, 3), **settings)
    assert same.model.calls == []


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(("scale", "size"), [(0.25, (10, 8)), (0.5, (20, 16)), (2.5, (102, 78))])
def test_scale_resizes_before_the_model_and_keeps_the_depth(same, dtype, scale, size):
    restored = same(noise(41, 31, 3, dtype=dtype), scale=scale)
    assert restored.pixels.shape[:2] == size
    assert restored.pixels.dtype == dtype


@pytest.mark.parametrize(
    ("given", "size", "result"),
    [((40, 30), 80, (80, 60)), ((30, 41), 20, (15, 20)), ((900, 3), 30, (30, 1))],
)
def test_size_is_the_longer_edge_of_the_result(same, given, size, result):
    restored = same(noise(*given, 3), size=size)
    assert restored.pixels.shape[:2] == result
    assert restored.provenance["size"] == size
    pixels = noise(*result, 3)
    np.testing.assert_array_equal(same(pixels, size=size).pixels, same(pixels).pixels)


def test_files_in_memory_are_photos(same, tmp_path):
    pixels = noise(20, 30, 3)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    expected = same(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(same(io.BytesIO(data)).pixels, expected)
    with (tmp_path / "a.png").open("rb") as file:
        np.testing.assert_array_equal(same(file).pixels, expected)
    with pytest.raises(PhotoError, match="is empty"):
        same(io.BytesIO())


def test_shrinking_is_antialiased_and_both_depths_agree():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resized_pixels(Photo.from_array(stripes), RestoreSettings(scale=0.25))
    assert np.abs(small[:, 2:-2].astype(int) - 127).max() < 12
    smooth = np.asarray(PIL.Image.fromarray(noise(9, 9, 3)).resize((70, 50)))
    larger = RestoreSettings(scale=1.7)
    deep = resized_pixels(Photo.from_array(smooth.astype(np.uint16) * 257), larger)
    eight = resized_pixels(Photo.from_array(smooth), larger)
    # Pillow rounds 8 bits after each of its two passes.
    assert np.abs(deep / 257 - eight).max() <= 1.5


def test_a_photo_of_1_pixel_stays_1_pixel(same):
    np.testing.assert_array_equal(
        same(np.full((1, 1, 3), 77, np.uint8)).pixels, np.full((1, 1, 3), 77)
    )
    assert same(np.full((1, 1, 3), 77, np.uint8), scale=0.25).pixels.shape == (1, 1, 3)


def test_restored_holds_the_picture_in_every_form_and_can_be_saved(same, tmp_path):
    pixels = noise(40, 30, 3)
    restored = same(pixels)
    assert isinstance(restored, Restored)
    np.testing.assert_array_equal(np.asarray(restored.image), pixels)
    assert restored.tensor.shape == (1, 3, 40, 30)
    assert restored.people == ()
    path = restored.save(tmp_path / "out.png", png_compression=1)
    np.testing.assert_array_equal(read_photo(path).pixels, pixels)
    with pytest.raises(dataclasses.FrozenInstanceError):
        restored.photo = None


def test_what_came_with_the_photo_stays(same, tmp_path):
    image = PIL.Image.fromarray(noise(40, 30, 3))
    exif = PIL.Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = 6
    image.save(tmp_path / "in.jpg", exif=exif, dpi=(300, 300))
    same(tmp_path / "in.jpg", scale=2).save(tmp_path / "out.jpg")
    with PIL.Image.open(tmp_path / "out.jpg") as out:
        assert out.size == (80, 60)
        assert out.getexif()[0x010F] == "a camera"
        assert out.getexif().get(0x0112, 1) == 1
        assert out.info["dpi"] == (300, 300)


def test_timings_and_provenance_tell_how_it_was_done(same):
    restored = same(noise(400, 300, 3), tile=128, batch=2, seed=7, color="adain", scale=1.5)
    assert set(restored.timings) == {"read", "model", "color", "total"}
    parts = sum(restored.timings[key] for key in ("read", "model", "color"))
    assert restored.timings["total"] == pytest.approx(parts)
    assert json.loads(json.dumps(restored.provenance)) == {
        "hbr": hbr.__version__,
        "torch": torch.__version__,
        "model": "same",
        "sha256": None,
        "decoder": None,
        "fidelity": None,
        "device": "cpu",
        "dtype": "float32",
        "backend": "eager",
        "fallback": None,
        "rewrites": [],
        "tile": [128, 128],
        "overlap": [32, 32],
        "tiles": 30,
        "batch": 2,
        "gate": None,
        "gate_score": None,
        "gate_reasons": [],
        "scale": 1.5,
        "size": None,
        "reduce": None,
        "color": "adain",
        "color_map": None,
        "grain": 0.0,
        "seed": 7,
        "prompt": None,
        "people": None,
        "faces": None,
        "structure": None,
        "sampling": None,
    }


def test_the_retreat_for_want_of_memory_shows_in_the_provenance(identity):
    model = identity()
    restore = model.restore

    def hungry(lq, places, conditions):
        if max(lq.shape[2:]) > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return restore(lq, places, conditions)

    model.restore = hungry
    restored = Restorer(model)(noise(400, 300, 3), tile=0)
    assert restored.provenance["tile"] == (200, 200)


class Drawing(torch.nn.Module):
    """A model that draws random numbers."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, capabilities):
        super().__init__()
        self.capabilities = capabilities

    def restore(self, lq, places, conditions):
        return lq * 0.9 + 0.1 * torch.rand_like(lq)


def test_a_seed_fixes_what_a_model_draws_and_leaves_the_callers_numbers_alone(small):
    restorer, photo = Restorer(Drawing(small)), noise(300, 300, 3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (restorer(photo, seed=1, tile=128).pixels for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    np.testing.assert_array_equal(first, again)
    assert (restorer(photo, seed=2, tile=128).pixels != first).any()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "auto"])
def test_the_real_class_restores_from_a_file_and_repeats_itself(toy_file, dtype):
    restorer = Restorer.from_pretrained(toy_file, device="cpu", dtype=dtype)
    photo = noise(150, 90, 3)
    digests = {hashlib.sha256(restorer(photo).pixels.tobytes()).hexdigest() for _ in range(3)}
    assert len(digests) == 1
    restored = restorer(photo)
    assert restored.pixels.shape == (150, 90, 3)
    assert restored.provenance["model"] == "toy"
    assert restored.provenance["sha256"] == hashlib.sha256(toy_file.read_bytes()).hexdigest()
    assert restored.provenance["tiles"] > 1
    assert dtype in ("auto", restored.provenance["dtype"])
    if dtype == "float16":  # more precise than bfloat16, and as far from overflowing as it must be
        exact = Restorer.from_pretrained(toy_file, device="cpu", dtype="float32")(photo)
        assert np.abs(restored.pixels.astype(int) - exact.pixels.astype(int)).max() <= 4
    assert not any(p.requires_grad for p in restorer.model.parameters())


def test_a_model_file_is_hashed_once_and_loaded_once(toy_file, monkeypatch):
    hashed, loaded = [], []
    hash_of, load = catalogue.sha256, loading.load
    monkeypatch.setattr(catalogue, "sha256", lambda path: hashed.append(path) or hash_of(path))
    monkeypatch.setattr(loading, "load", lambda *args: loaded.append(args) or load(*args))
    for name in (toy_file, "nano"):
        restorer = Restorer.from_pretrained(name, device="cpu", dtype="auto")
        assert restorer.sha256 == hash_of(hashed[-1])
    assert (len(hashed), len(loaded)) == (2, 2)


def test_wrong_devices_precisions_and_weights_are_errors(toy_file, tmp_path):
    with pytest.raises(ValueError, match=r"device is 'gpu'; it must be auto, cpu, cuda"):
        Restorer.from_pretrained(toy_file, device="gpu")
    with pytest.raises(ValueError, match=r"device is 'cuda:99'"):
        Restorer.from_pretrained(toy_file, device="cuda:99")
    with pytest.raises(ValueError, match=r"dtype is 'int8'; it must be one of auto, "):
        Restorer.from_pretrained(toy_file, device="cpu", dtype="int8")
    with pytest.raises(ValueError, match=r"dtype is 'float64'"):
        Restorer.from_pretrained(toy_file, device="cpu", dtype="float64")
    with pytest.raises(WeightsError):
        Restorer.from_pretrained(tmp_path / "none.safetensors")


def test_the_prompt_comes_from_the_tile(toy_file):
    restorer = Restorer.from_pretrained(toy_file, device="cpu", dtype="float32")
    seen = []
    restorer.model.prompt.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2:]))
    restorer(noise(150, 90, 3), tile=64)
    assert set(seen) == {(64, 64)}
    assert len(seen) > 1


def test_a_fixed_prompt_serves_as_well(tmp_path):
    path = toy_models.write(tmp_path / "fixed.safetensors", toy_models.FIXED_PROMPT)
    restored = Restorer.from_pretrained(path, device="cpu")(noise(20, 20, 3))
    assert restored.pixels.shape == (20, 20, 3)


def test_photos_come_through_as_they_are():
    photo = Photo.from_array(noise(4, 4, 3))
    assert as_photo(photo) is photo
