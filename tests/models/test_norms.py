"""Passes between convolutions: those of torch, the kernels for CUDA, and blocks made of them.

Kernels also run on a CPU, slowly, where Triton is installed:
`TRITON_INTERPRET=1 HBR_TEST_GPU=cpu python -m pytest tests/models/test_norms.py`
"""

import importlib.util
import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbr.errors import one_line
from hbr.models.inference import norms
from hbr.models.inference.layers import FoldedUpsampling, ResidualBlock, upsampling_kernel
from hbr.models.inference.norms import Normalised, add_to, normalise

# channels, groups, height, width, batch: groups that are no power of 2, pixels and channels that
# fill no block, one stretch of pixels and many
SHAPES = [(64, 32, 20, 17, 2), (320, 32, 8, 8, 1), (48, 8, 33, 5, 3), (128, 32, 64, 60, 1)]


def norm_of(channels, groups, dtype, device="cpu"):
    norm = nn.GroupNorm(groups, channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.uniform_(norm.bias)
    return norm.to(device, dtype)


def activations(*shape, dtype, device="cpu"):
    x = (torch.randn(shape) * 2 + 1).to(device, dtype)
    return x.contiguous(memory_format=torch.channels_last)


def expected(x, norm, before, silu):
    x = x.double() if before is None else x.double() + before.double()[:, None, None]
    y = F.group_norm(x, norm.num_groups, norm.weight.double(), norm.bias.double(), norm.eps)
    return F.silu(y) if silu else y


def distance(seen, wanted):
    return ((seen.double() - wanted).norm() / wanted.norm()).item()


@pytest.fixture(autouse=True)
def fixed():
    torch.manual_seed(0)


@pytest.fixture
def kernels(gpu):
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    if gpu == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("on a CPU, Triton needs TRITON_INTERPRET=1")
    from hbr.models.inference import triton_norms

    return triton_norms


@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_torch_normalises_where_there_are_no_kernels(biased, silu):
    x, norm = activations(2, 32, 6, 5, dtype=torch.float64), norm_of(32, 8, torch.float64)
    before = torch.randn(32, dtype=torch.float64) if biased else None
    kept = x.clone()
    seen = normalise(x, norm, before, silu=silu)
    torch.testing.assert_close(seen, expected(kept, norm, before, silu), atol=1e-12, rtol=0)
    torch.testing.assert_close(x, kept, atol=0, rtol=0)
    if not biased:
        torch.testing.assert_close(Normalised(norm, silu=silu)(x), seen, atol=0, rtol=0)


def block_of(channels):
    block = SimpleNamespace(
        norm1=norm_of(channels, 4, torch.float32),
        conv1=nn.Conv2d(channels, 32, 3, padding=1),
        norm2=norm_of(32, 4, torch.float32),
        conv2=nn.Conv2d(32, 32, 3, padding=1),
        conv_shortcut=None if channels == 32 else nn.Conv2d(channels, 32, 1),
    )
    made = ResidualBlock(block, bias=torch.randn(32))
    assert made.plain
    return made


@pytest.mark.parametrize("channels", [16, 32])
def test_a_block_is_the_same_with_its_biases_in_other_passes(channels):
    made = block_of(channels).double()
    x = activations(2, channels, 7, 9, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(made._with_kernels(x), made(x), atol=1e-12, rtol=0)


def test_kernels_are_for_plain_runs_on_cuda(monkeypatch):
    x = SimpleNamespace(is_cuda=True, dtype=torch.bfloat16)
    monkeypatch.setattr(norms, "_kernels", lambda: SimpleNamespace())
    assert norms.have_kernels(x)
    assert not norms.have_kernels(SimpleNamespace(is_cuda=False, dtype=torch.bfloat16))
    assert not norms.have_kernels(SimpleNamespace(is_cuda=True, dtype=torch.float64))
    for module, name in (torch.compiler, "is_compiling"), (torch.onnx, "is_in_onnx_export"):
        with monkeypatch.context() as traced:
            traced.setattr(module, name, lambda: True)
            assert not norms.have_kernels(x)
    monkeypatch.setattr(norms, "_failed", ["no compiler"])
    assert not norms.have_kernels(x)


@pytest.mark.parametrize("error", [RuntimeError("no C compiler"), OSError("no driver")])
def test_torch_takes_over_where_a_kernel_cannot_be_compiled(error, monkeypatch, caplog):
    def fails(*args, **kwargs):
        raise error

    kernels = SimpleNamespace(normalise=fails, add_to=fails)
    monkeypatch.setattr(norms, "_kernels", lambda: kernels)
    monkeypatch.setattr(norms, "_failed", failed := [])
    monkeypatch.setattr(norms, "have_kernels", lambda x: not failed)
    x, norm = activations(1, 8, 4, 4, dtype=torch.float32), norm_of(8, 4, torch.float32)
    torch.testing.assert_close(normalise(x, norm), norm(x), atol=0, rtol=0)
    failed.clear()
    y, bias = torch.zeros_like(x), torch.randn(8)
    torch.testing.assert_close(add_to(y, bias, x), x + bias[:, None, None])
    (line,) = {record.message for record in caplog.records}
    assert line == f"Triton compiles no kernels ({one_line(error)}); torch's take longer"


def test_out_of_memory_is_no_reason_to_give_up_kernels(monkeypatch):
    def fails(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(norms, "_kernels", lambda: SimpleNamespace(normalise=fails))
    monkeypatch.setattr(norms, "have_kernels", lambda x: True)
    with pytest.raises(torch.OutOfMemoryError):
        normalise(torch.zeros(1, 8, 4, 4), norm_of(8, 4, torch.float32))
    assert not norms._failed


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("dtype", "most"),
    [(torch.float32, 1e-6), (torch.bfloat16, 5e-3), (torch.float16, 1e-3)],
    ids=str,
)
def test_kernels_are_right(shape, dtype, most, kernels, gpu):
    channels, groups, height, width, batch = shape
    x = activations(batch, channels, height, width, dtype=dtype, device=gpu)
    norm, bias = norm_of(channels, groups, dtype, gpu), torch.randn(channels).to(gpu, dtype)
    for before in None, bias:
        for silu in True, False:
            seen = kernels.normalise(x, norm, before, silu=silu)
            assert distance(seen, expected(x, norm, before, silu)) < most
            assert seen.is_contiguous(memory_format=torch.channels_last)
    for added in None, x:
        y = torch.randn_like(x)
        wanted = y.double() + bias.double()[:, None, None] + (0 if added is None else x.double())
        assert distance(kernels.add_to(y, bias, added), wanted) < most


@pytest.mark.gpu
def test_kernels_are_right_far_from_zero(kernels, gpu):
    x, norm = activations(2, 64, 20, 17, dtype=torch.float32), norm_of(64, 32, torch.float32, gpu)
    x = (x + torch.linspace(-300, 300, 64)[:, None, None]).to(gpu)
    bias = torch.linspace(500, 400, 64, device=gpu)
    for conv_bias in None, bias:
        seen = kernels.normalise(x, norm, conv_bias, silu=False)
        assert distance(seen, expected(x, norm, conv_bias, silu=False)) < 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [16, 32])
def test_a_block_is_the_same_by_kernels(channels, kernels, gpu, monkeypatch):
    monkeypatch.setattr(norms, "have_kernels", lambda x: True)
    monkeypatch.setattr(norms, "_kernels", lambda: kernels)
    made = block_of(channels).to(gpu)
    x = activations(2, channels, 7, 9, dtype=torch.float32, device=gpu)
    with torch.inference_mode(), torch.backends.cudnn.flags(allow_tf32=False):
        seen = made._with_kernels(x)
        monkeypatch.setattr(norms, "have_kernels", lambda x: False)
        assert distance(seen, made.double()(x.double())) < 1e-5
    assert not norms._failed


@pytest.mark.gpu
def test_cuda_takes_the_kernels(kernels, gpu, monkeypatch):
    if gpu == "cpu":
        pytest.skip("only CUDA takes them")
    x, norm = (
        activations(1, 64, 16, 16, dtype=torch.float32, device=gpu),
        norm_of(64, 32, torch.float32, gpu),
    )
    taken = []
    for name in "normalise", "add_to":
        real = getattr(kernels, name)
        monkeypatch.setattr(
            kernels, name, lambda *a, n=name, real=real, **k: (taken.append(n), real(*a, **k))[1]
        )
    assert norms.have_kernels(x)
    assert not norms.have_kernels(x.double())
    conv = nn.Conv2d(64, 32, 3, padding=1)
    upsampling = FoldedUpsampling(upsampling_kernel(conv.weight.detach()), conv.bias.detach())
    with torch.inference_mode():
        normalise(x.contiguous(), norm)
        seen = upsampling.to(gpu)(x)
        doubled = F.interpolate(x.double(), scale_factor=2.0)
        wanted = conv.to(gpu).double()(doubled)
    assert taken == ["normalise", "add_to"]
    assert distance(seen, wanted) < 1e-3  # TF32 may be on
    assert add_to(torch.ones(1, 2, 3, 3), torch.ones(2)).eq(2).all()
