"""Model files through spandrel: toy weights of many architectures, and files that are none."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toy_networks import ARCHITECTURES, BSRGAN, REAL_ESRGAN, Evil, Names, rrdb, rrdb_weights

from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.config import SpandrelConfig

PHOTO = Path(__file__).parents[1] / "data" / "purple.jpg"


@pytest.fixture
def lq(tmp_path: Path) -> Path:
    path = tmp_path / "lq.png"
    Image.open(PHOTO).convert("RGB").crop((100, 200, 156, 240)).save(path)
    return path


def tensor(path: Path) -> Tensor:
    """[1, 3, h, w] in [0, 1]."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    return pixels.permute(2, 0, 1)[None] / 255


def restore(file: Path, lq: Path, out: Path, **settings: Any) -> tuple[Tensor, dict[str, Any]]:
    method = build_method(SpandrelConfig(file=file, device="cpu", **settings))
    outcome = method.run({"lq": lq}, out)
    assert not outcome.failed
    return tensor(outcome.restored["lq"]), dict(outcome.provenance)


def levels(a: Tensor, b: Tensor) -> float:
    """The largest difference, in levels of 255."""
    assert a.shape == b.shape
    return float((a - b.clamp(0, 1)).abs().max() * 255)


@pytest.mark.parametrize(
    ("names", "wrapped", "suffix"),
    [
        (REAL_ESRGAN, "params_ema", ".pth"),
        (REAL_ESRGAN, None, ".safetensors"),
        (BSRGAN, None, ".pth"),
        (BSRGAN, "state_dict", ".ckpt"),
    ],
)
def test_rrdb(tmp_path: Path, lq: Path, names: Names, wrapped: str | None, suffix: str) -> None:
    weights = rrdb_weights(names)
    file = tmp_path / f"gan{suffix}"
    if suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(weights, file)
    else:
        torch.save({wrapped: weights} if wrapped else weights, file)
    expected = rrdb(tensor(lq), weights, names)
    spread = expected.std()
    assert 0.05 < spread < 1, "a picture, not a plain"
    made, told = restore(file, lq, tmp_path / "out", scale=4.0)
    assert levels(made, expected) <= 1
    (environment,) = told["made_with"]
    assert (environment["architecture"], environment["factor"]) == ("ESRGAN", 4)
    assert environment["tags"] == ["16nf", "1nb"]
    from hbr.files import sha256

    assert (told["name"], told["sha256"]) == (file.name, sha256(file))


def test_the_two_ways_to_feed_a_network_of_factor_4(tmp_path: Path, lq: Path) -> None:
    weights = rrdb_weights(REAL_ESRGAN)
    file = tmp_path / "x4.pth"
    torch.save(weights, file)
    image = Image.open(lq)
    bicubic = Image.Resampling.BICUBIC
    image.resize((14, 10), bicubic).save(tmp_path / "small.png")

    full, _ = restore(file, lq, tmp_path / "full")
    grown, _ = restore(file, lq, tmp_path / "grown", scale=4.0)
    shrunk = Image.fromarray((grown[0].permute(1, 2, 0) * 255).round().byte().numpy())
    shrunk.resize((56, 40), bicubic).save(tmp_path / "expected.png")
    assert levels(full, tensor(tmp_path / "expected.png")) == 0
    small, _ = restore(file, lq, tmp_path / "small", input="small")
    assert levels(small, rrdb(tensor(tmp_path / "small.png"), weights, REAL_ESRGAN)) <= 1


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures(tmp_path: Path, lq: Path, name: str) -> None:
    make, factor, called = ARCHITECTURES[name]
    model = make()
    file = tmp_path / "toy.pth"
    torch.save(model.state_dict(), file)
    made, told = restore(file, lq, tmp_path / "out", scale=float(factor))
    (environment,) = told["made_with"]
    assert (environment["architecture"], environment["factor"]) == (called, factor)
    assert made.shape == (1, 3, 40 * factor, 56 * factor)

    from spandrel import ModelLoader

    direct = ModelLoader(device="cpu").load_from_state_dict(model.state_dict())
    assert levels(made, direct(tensor(lq))) <= 1


def test_tiles_do_not_show(tmp_path: Path) -> None:
    """A network that sees 5 pixels around: the whole and its tiles are the same picture."""
    lq = tmp_path / "large.png"
    Image.open(PHOTO).convert("RGB").crop((0, 0, 197, 141)).save(lq)
    model = ARCHITECTURES["Real-ESRGAN general v3"][0]()
    file = tmp_path / "toy.pth"
    torch.save(model.state_dict(), file)
    whole, _ = restore(file, lq, tmp_path / "whole", scale=4.0, tile=0)
    tiled, _ = restore(file, lq, tmp_path / "tiled", scale=4.0, tile=64)
    assert whole.std() > 0.05
    assert levels(tiled, whole) <= 1.01  # one level: rounded once more
    with torch.no_grad():
        assert levels(whole, model(tensor(lq))) <= 1


def test_it_needs_no_luck_to_repeat(tmp_path: Path, lq: Path) -> None:
    file = tmp_path / "toy.pth"
    torch.save(ARCHITECTURES["SwinIR-GAN"][0]().state_dict(), file)
    for out in ("a", "b"):
        restore(file, lq, tmp_path / out, input="small")
    assert (tmp_path / "a" / "lq.png").read_bytes() == (tmp_path / "b" / "lq.png").read_bytes()


def write_evil(path: Path) -> None:
    torch.save({"conv_first.weight": Evil()}, path)


def write_torchscript(path: Path) -> None:
    torch.jit.script(nn.Conv2d(3, 3, 3)).save(str(path))


def write_old_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Evil()))


def write_cut(path: Path) -> None:
    torch.save(rrdb_weights(REAL_ESRGAN), path)
    path.write_bytes(path.read_bytes()[:5000])


def write_grey(path: Path) -> None:
    torch.save(rrdb_weights(REAL_ESRGAN, colours=1), path)


def write_half_a_network(path: Path) -> None:
    weights = rrdb_weights(REAL_ESRGAN)
    torch.save({k: v for k, v in weights.items() if "rdb2" not in k}, path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "write", "says"),
    [
        ("evil.pth", write_evil, "cannot be read as weights alone, and nothing else in it is run"),
        ("old.ckpt", write_old_pickle, "nothing else in it is run"),
        ("script.pt", write_torchscript, "nothing else in it is run"),
        ("cut.pth", write_cut, "cannot be read as weights alone"),
        ("cut.safetensors", write_cut, "cannot be read as weights alone"),
        ("text.pth", lambda p: p.write_text("weights"), "is a text file, not weights"),
        ("list.pth", lambda p: torch.save([1], p), "holds a list, no weights by name"),
        ("what.pth", lambda p: torch.save({"a.weight": torch.ones(3)}, p), "no architecture"),
        ("half.pth", write_half_a_network, "cannot be made a network of"),
        ("grey.pth", write_grey, "ESRGAN from 1 to 1 channels, not RGB"),
        ("model.onnx", lambda p: p.write_bytes(b"onnx"), "does not end in .pth"),
    ],
)
def test_files_that_are_none(
    tmp_path: Path,
    lq: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], None],
    says: str,
) -> None:
    monkeypatch.setenv("EVIL", str(tmp_path / "evil"))
    file = tmp_path / name
    write(file)
    with pytest.raises(MethodError) as caught:
        restore(file, lq, tmp_path / "out")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "evil").exists()


def test_settings_that_do_not_fit(tmp_path: Path, lq: Path) -> None:
    file = tmp_path / "toy.pth"
    torch.save(ARCHITECTURES["SwinIR-GAN"][0]().state_dict(), file)
    with pytest.raises(MethodError, match="SwinIR, which does not run in float16"):
        restore(file, lq, tmp_path / "out", dtype="float16")
    with pytest.raises(MethodError, match="tile is 8; this network needs at least 16"):
        restore(file, lq, tmp_path / "out", tile=8, dtype="float32")


@pytest.mark.parametrize(("unshuffle", "upscale", "window"), [(8, 8, 8), (1, 4, 8), (2, 4, 4)])
def test_swinir_is_the_network_of_hbr(unshuffle: int, upscale: int, window: int) -> None:
    from spandrel import ModelLoader

    from hbr.models.swinir import SwinIR, WindowAttention, shifted_window_mask
    from hbr.models.swinir_config import SwinIRConfig

    torch.manual_seed(0)
    sizes = {"depths": (2, 3), "num_heads": (3, 3), "window_size": window, "width": 64}
    config = SwinIRConfig(
        embed_dim=12, unshuffle=unshuffle, upscale=upscale, native_size=512, **sizes
    )
    ours = SwinIR(config).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = dict(ours.state_dict())
    for name, module in ours.named_modules():
        if isinstance(module, WindowAttention):
            state[f"{name}.relative_position_index"] = module.relative_position_index
    mask = shifted_window_mask(64, 64, window, window // 2)
    for group in (0, 1):  # every second block of a group is shifted
        state[f"layers.{group}.residual_group.blocks.1.attn_mask"] = mask
    theirs = ModelLoader().load_from_state_dict(dict(state)).model.eval()
    edge = config.multiple_of // config.factor
    x = torch.rand(2, 3, edge, 2 * edge)
    with torch.no_grad():
        expected, got = theirs(x), ours(x)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()
