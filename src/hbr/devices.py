"""Where networks run: device, precision, batch size, reproducibility, and running out of memory.

torch is imported only inside functions, so that importing this module is fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import hashlib
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hbr.lazy import importing

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
Size = TypeVar("Size")

DTYPES = ("float32", "bfloat16", "float16")
"""Names of the precisions that networks run in."""

_GIB = 2**30
# A generous estimate for one 512×512 tile in a network the size of Stable Diffusion.
_CUDA_MEMORY_PER_TILE = 8 * _GIB
_LARGEST_BATCH = 8
# Parameters of glibc's mallopt: free memory at the top of the heap from which it is given back, how
# many blocks may be mapped by themselves, and how many heaps the threads have.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_LARGEST_INT = 2**31 - 1
_HAS_GLIBC = sys.platform.startswith("linux")  # or another C library, without these functions
_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
# The CPU allocator, CUDA and MPS, and cuDNN or cuBLAS failing to allocate their workspace.
_OUT_OF_MEMORY = ("allocate memory", "not enough memory", "out of memory", "alloc_failed")


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """Return a device by name; "auto" is the first available of CUDA, MPS and the CPU.

    Raises:
        ValueError: the name is not a device, or this machine does not have it.
    """
    with importing("torch"):
        import torch

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
    available = {"cpu": True, "cuda": cuda, "mps": mps}[device.type]
    if not available or (
        device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ValueError(f"device is {str(name)!r}, which this machine does not have; {expected}")
    return device


def choose_dtype(name: str, device: torch.device, supported: tuple[str, ...] = DTYPES) -> str:
    """Return a precision by name; "auto" is bfloat16 if the hardware is faster in it.

    `name` is "auto" or one of `supported`, the precisions of the model.

    Raises:
        ValueError: the model does not support the precision.
    """
    if name == "auto":
        fast = "bfloat16" if has_fast_bfloat16(device) else "float32"
        return fast if fast in supported else "float32"
    if name not in supported:
        raise ValueError(f"dtype is {name!r}; it must be one of auto, {', '.join(supported)}")
    return name


def torch_dtype(name: str) -> torch.dtype:
    """Return the torch dtype of one of `DTYPES`."""
    import torch

    dtype: torch.dtype = getattr(torch, name)
    return dtype


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether the hardware computes faster in bfloat16 than in float32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu" and not has_slow_bfloat16():
        # Older versions of torch have only these private names, and either may be removed.
        checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, check, bool)() for check in checks)
    return False


def has_slow_bfloat16() -> bool:
    """Return whether the CPU has bfloat16 but computes faster in float32.

    Intel processors with AVX512-BF16 but without AMX do, as some virtual machines present them:
    convolutions in bfloat16 take twice as long there (docs/speed.md).
    """
    told = _processor()
    sets = told.get("flags", "").split()
    intel = told.get("vendor_id") == "GenuineIntel"
    return intel and "avx512_bf16" in sets and "amx_bf16" not in sets


def processor_name() -> str:
    """Name the CPU, with a digest of its instruction sets where the system tells them."""
    told = _processor()
    name = _model(told)
    sets = told.get("flags") or told.get("Features")
    if not sets:
        return name
    return f"{name} ({hashlib.sha256(' '.join(sorted(sets.split())).encode()).hexdigest()[:8]})"


def processor_model() -> str:
    """Name the CPU as the system does, or its kind."""
    return _model(_processor())


def _model(told: Mapping[str, str]) -> str:
    return told.get("model name") or platform.processor() or platform.machine()


def _processor() -> dict[str, str]:
    """What Linux tells of the first CPU; elsewhere nothing."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def choose_batch(device: torch.device | str) -> int:
    """Return the number of tiles per batch: 1 on CPU and MPS; by the device's memory on CUDA.

    This uses the total memory instead of the free memory: the batch size can change the last bit of
    a result, and the same input must give the same bytes.
    """
    if str(device).partition(":")[0] != "cuda":
        return 1
    import torch

    memory = torch.cuda.get_device_properties(device).total_memory
    return max(1, min(_LARGEST_BATCH, memory // _CUDA_MEMORY_PER_TILE))


def free_memory(device: torch.device) -> int:
    """Return the bytes of memory that are free on a device.

    On the CPU that is what a container leaves, if there is one.
    """
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError, ValueError):  # no limit, or another system
        limit, used = (int((_CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(limit - used, 0))
    return free


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors on the CPU for the next ones.

    glibc maps every large block anew and gives it back when it is freed; the kernel clears each of
    its pages on first use, which takes up to a fifth of the time of a network. Elsewhere than on
    Linux with glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if _HAS_GLIBC else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_ARENA_MAX, 1)  # other heaps are too small for a large block
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


def release_freed_memory() -> None:
    """Give back what this process keeps of freed memory, so that it does not count as its own."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if _HAS_GLIBC else None
    if trim is not None:
        trim(0)


@contextmanager
def reproducible(seed: int, device: torch.device | str) -> Iterator[None]:
    """Inference mode with a fixed seed and deterministic algorithms.

    The caller's RNG state is restored afterwards. A device that is only a name is that of a model
    without torch, which draws no numbers.
    """
    if isinstance(device, str):
        yield
        return
    import torch

    cuda = [device] if device.type == "cuda" else []
    cudnn = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    with torch.inference_mode(), torch.random.fork_rng(devices=cuda), cudnn:
        torch.manual_seed(seed)
        yield


@contextmanager
def exact_inference() -> Iterator[None]:
    """Inference mode, with float32 convolutions in float32 on CUDA too; a decorator as well.

    By default torch rounds what they multiply to TF32 there, to 11 bits, and a score that is
    compared with a threshold moves by more than 0.001.
    """
    import torch

    cudnn = torch.backends.cudnn
    flags = cudnn.flags(
        enabled=cudnn.enabled,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
        allow_tf32=False,
    )
    with torch.inference_mode(), flags:
        yield


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means out of memory on any device; torch has no single type for it.

    This does not import torch: unless torch is loaded, the error cannot be torch's.
    """
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in text for sign in _OUT_OF_MEMORY)


def is_device_failure(error: BaseException) -> bool:
    """Return whether a device has failed in a way after which it computes nothing any more.

    After an illegal access or an assertion in a kernel, CUDA refuses all work of the process.
    """
    text = str(error).lower()
    return isinstance(error, RuntimeError) and "cuda error" in text and not is_out_of_memory(error)


def fit_in_memory(
    run: Callable[[Size], T], size: Size, smaller: Callable[[Size], Size]
) -> tuple[T, Size]:
    """Call `run(size)`; each time memory runs out, free it and try again with a smaller size.

    `smaller` returns the next size to try, or raises if there is none.

    Returns:
        what `run` returned, and the size that fitted into memory.
    """
    while True:
        try:
            return run(size), size
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of `except`: the traceback no longer references tensors of the failed run.
        release_memory()
        size = smaller(size)


def release_memory() -> None:
    """Give back what no tensor needs any more, on every device."""
    gc.collect()
    if (torch := sys.modules.get("torch")) is None:
        return
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
