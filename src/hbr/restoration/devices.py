"""Which device and precision a network runs on, and how it gives the same bytes each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

_GIB = 2**30
# What a tile of 512×512 takes in a network of Stable Diffusion's size, amply.
_CUDA_MEMORY_PER_TILE = 8 * _GIB
_LARGEST_BATCH = 8


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name; "auto" is the first there is of CUDA, MPS and the CPU.

    Raises:
        ValueError: no such device exists, or not on this machine.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    expected = "it must be auto, cpu, cuda, cuda:N or mps"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise ValueError(f"device is {str(name)!r}; {expected}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device is {str(name)!r}; {expected}")
    there = {"cpu": True, "cuda": cuda, "mps": mps}[device.type]
    if not there or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise ValueError(f"device is {str(name)!r}, which this machine does not have; {expected}")
    return device


def choose_dtype(name: str, device: torch.device, offered: tuple[str, ...]) -> str:
    """The precision of that name; "auto" is bfloat16 where the hardware computes in it.

    Args:
        name: "auto", "float32", "bfloat16" or "float16".
        device: where the network runs.
        offered: the precisions that the model takes; empty if it is not known yet.

    Raises:
        ValueError: no such precision exists, or the model does not take it.
    """
    choices = offered or tuple(DTYPES)
    if name == "auto":
        fast = "bfloat16" if has_fast_bfloat16(device) else "float32"
        return fast if fast in choices else "float32"
    if name not in choices:
        raise ValueError(f"dtype is {name!r}; it must be one of auto, {', '.join(choices)}")
    return name


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies in bfloat16 rather than emulating it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        # Older torch has only the private names, and either set may go.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def choose_batch(device: torch.device) -> int:
    """Tiles at a time: 1 on the CPU and MPS, more on CUDA by the memory that the device has.

    Of the memory in all, not of what is free just now: the size of a batch can change the last bit
    of a result, and the same input must give the same bytes.
    """
    if device.type != "cuda":
        return 1
    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, min(_LARGEST_BATCH, memory // _CUDA_MEMORY_PER_TILE))


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Inference without gradients, seeded, with algorithms that repeat themselves to the bit.

    The caller's random state is as before afterwards.
    """
    cuda = [device] if device.type == "cuda" else []
    cudnn = torch.backends.cudnn.flags(
        enabled=True,
        benchmark=False,
        deterministic=True,
        allow_tf32=torch.backends.cudnn.allow_tf32,
    )
    with torch.inference_mode(), torch.random.fork_rng(devices=cuda), cudnn:
        torch.manual_seed(seed)
        yield
