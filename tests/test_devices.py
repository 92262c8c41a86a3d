"""What a processor is said to be, by what Linux tells of it."""

import pytest
import torch

from hbr import devices

FLAGS = "fpu avx512f avx512_bf16 avx512_fp16"


def told(tmp_path, monkeypatch, vendor, flags):
    text = f"vendor_id\t: {vendor}\nmodel name\t: A CPU\nflags\t\t: {flags}\n"
    (tmp_path / "cpuinfo").write_text(f"{text}\n{text.replace(flags, 'amx_bf16')}")
    monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "cpuinfo")


@pytest.mark.parametrize(
    ("vendor", "flags", "slow"),
    [
        ("GenuineIntel", FLAGS, True),
        ("GenuineIntel", FLAGS + " amx_bf16 amx_tile", False),
        ("GenuineIntel", "fpu avx512f", False),
        ("AuthenticAMD", FLAGS, False),
    ],
)
def test_bfloat16_is_not_chosen_where_float32_is_faster(tmp_path, monkeypatch, vendor, flags, slow):
    for name in "_is_avx512_bf16_supported", "_is_amx_tile_supported":
        monkeypatch.setattr(torch.cpu, name, lambda: True, raising=False)
    told(tmp_path, monkeypatch, vendor, flags)
    assert devices.has_slow_bfloat16() == slow
    chosen = devices.choose_dtype("auto", torch.device("cpu"))
    assert chosen == ("float32" if slow else "bfloat16")


def test_the_name_of_a_processor_has_its_instruction_sets(tmp_path, monkeypatch):
    told(tmp_path, monkeypatch, "AuthenticAMD", "b a")
    assert devices.processor_model() == "A CPU"
    name = devices.processor_name()
    assert name.startswith("A CPU (")
    told(tmp_path, monkeypatch, "AuthenticAMD", "a b")
    assert devices.processor_name() == name
    told(tmp_path, monkeypatch, "AuthenticAMD", "a b c")
    assert devices.processor_name() != name


def test_where_the_system_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "_CPUINFO", tmp_path / "missing")
    assert not devices.has_slow_bfloat16()
    assert devices.processor_name() == devices.processor_model()


def test_exact_inference_computes_in_float32_and_leaves_the_settings_as_they_were():
    cudnn = torch.backends.cudnn
    before = cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32

    @devices.exact_inference()
    def run():
        assert torch.is_inference_mode_enabled()
        assert not cudnn.allow_tf32
        return cudnn.enabled, cudnn.benchmark, cudnn.deterministic

    assert before[-1]
    for _ in range(2):
        assert run() == before[:3]
    assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == before
