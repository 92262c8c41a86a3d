"""Models compiled by torch: the same numbers, or one line that says why not."""

import numpy as np
import pytest
import torch

import toy_models
from hbr.models import Conditions
from hbr.models.graphs import BackendError
from hbr.models.inference.compiled import compile_model
from hbr.restoration import Restorer


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CXX", "sh")  # there, and never called
    return toy_models.write(tmp_path / "toy.safetensors")


def loaded(file, backend):
    return Restorer.from_pretrained(file, device="cpu", dtype="float32", backend=backend)


def test_tiles_of_the_native_size_are_compiled_and_others_run_as_they_are(file, monkeypatch):
    seen = []

    def compiling(run, **options):
        def compiled(tiles, prompt):
            seen.append(tuple(tiles.shape))
            return run(tiles, prompt)

        assert options == {"dynamic": False, "fullgraph": True}
        return compiled

    monkeypatch.setattr(torch, "compile", compiling)
    restorer = loaded(file, "compiled")
    assert seen == [(1, 3, 64, 64)]  # once at the beginning
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    restored = restorer(pixels)
    assert seen == [(1, 3, 64, 64)] * 2
    np.testing.assert_array_equal(restored.pixels, loaded(file, "eager")(pixels).pixels)
    provenance = restored.provenance
    assert (provenance["backend"], provenance["dtype"]) == ("compiled", "float32")
    assert provenance["torch"] == torch.__version__
    assert provenance["rewrites"]
    restorer(pixels[:32, :32])
    assert len(seen) == 2
    large = restorer(np.zeros((100, 150, 3), np.uint8))
    assert seen[2:] == [(1, 3, 64, 64)] * large.provenance["tiles"]
    assert large.provenance["tile"] == (64, 64)
    together = restorer(np.zeros((100, 150, 3), np.uint8), batch=3)
    assert seen[2:] == [(1, 3, 64, 64)] * 2 * large.provenance["tiles"]
    np.testing.assert_array_equal(together.pixels, large.pixels)


def test_a_layer_that_cannot_be_compiled_is_one_line(file, monkeypatch):
    def failing(tiles, prompt):
        raise RuntimeError("no such layer\nat line 1")

    monkeypatch.setattr(torch, "compile", lambda run, **options: failing)
    with pytest.raises(
        BackendError, match=r"^torch cannot compile the model: no such layer[^\n]*$"
    ):
        loaded(file, "compiled")


def test_models_of_many_steps_are_refused():
    class Sampler:
        capabilities = toy_models.CONFIG.capabilities.__class__(
            multiple_of=8, min_size=8, native_size=64, dtypes=("float32",), samples=True
        )

    with pytest.raises(BackendError, match="restores in many steps cannot be compiled"):
        compile_model(Sampler())


@pytest.mark.slow
def test_compiled_kernels_compute_what_the_model_does(file, monkeypatch, tmp_path):
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    compiled, eager = (loaded(file, backend).model for backend in ("compiled", "eager"))
    tiles = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        first, again, expected = (
            model.restore(tiles, [], Conditions()) for model in (compiled, compiled, eager)
        )
    assert list((tmp_path / "kernels").rglob("*.cpp"))
    torch.testing.assert_close(first, expected, atol=1 / 255, rtol=0)
    assert torch.equal(first, again)
    with torch.inference_mode():
        several = compiled.restore(torch.cat([tiles, tiles.flip(-1), tiles]), [], Conditions())
    assert torch.equal(several[:1], first)
    assert torch.equal(several[2:], first)
