"""Data-parallel training: the processes, their shares of a batch, and their communication.

Every process holds the whole model and takes its share of each batch; gradients are averaged before
each update. The model is not wrapped in `DistributedDataParallel`, because its parts are called
instead of its `forward`, and because one step runs the U-Net with several sets of adapters and
makes two updates of different parameters. Of a large model only adapters are trained, so that one
reduction per update is cheap. With a single process there is no overhead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, broadcast, gather_object
from torch import Tensor

from hbr.config import ConfigError
from hbr.distributed import world_size
from hbr.training.config import TrainConfig
from hbr.training.data import share_of
from hbr.training.state import TrainingError

T = TypeVar("T")

# Elements per reduction: few calls, little memory.
_BUCKET = 2**25


class Processes:
    """The group of processes of a training, seen from one of them.

    They are started by `torchrun` or `accelerate launch`; otherwise there is only one.

    Args:
        device: the device of this process. With several processes it has no index: each uses the
            device of its local rank.
        config: the training.

    Attributes:
        count: number of processes.
        index: rank of this process, from 0.

    Raises:
        ConfigError: the device, the launcher or the batch does not fit the number of processes.
    """

    def __init__(self, device: str, config: TrainConfig) -> None:
        self._wanted = torch.device(device)
        self._precision = "bf16" if config.precision == "bfloat16" else "no"
        self._accumulate = config.optim.accumulate
        # before the processes meet: one that ends early would take the others' connection along
        _check_launcher(self._wanted)
        for i in range(len(config.phases)):
            config.micro_batch(i, world_size())
        self.begin()

    def begin(self) -> None:
        """Initialise Accelerate for this training; its settings are global to the process."""
        AcceleratorState._reset_state(reset_partial_state=True)
        if self._wanted.type == "cuda" and self._wanted.index is not None:
            torch.cuda.set_device(self._wanted)
        try:
            self._accelerator = Accelerator(
                cpu=self._wanted.type == "cpu",
                mixed_precision=self._precision,
                gradient_accumulation_plugin=GradientAccumulationPlugin(self._accumulate),
            )
        except ValueError as error:  # such as a device without bfloat16
            raise ConfigError(f"precision, or the launcher: {error}") from None
        self.count, self.index = self._accelerator.num_processes, self._accelerator.process_index
        if self.device.type != self._wanted.type:
            raise ConfigError(
                f"the launcher chose {self.device}, not {self._wanted}; give --device as well"
            )

    def end(self) -> None:
        """Leave the process group, at the end of the training."""
        self._accelerator.end_training()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.index == 0

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self._accelerator.device

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context that runs the forward pass in the training's precision."""
        return self._accelerator.autocast()

    def share(self, batch: int) -> range:
        """Return this process's crops of a batch."""
        return share_of(batch, self.index, self.count)

    def parts(self, batch: int) -> Iterator[range]:
        """Yield this process's crops in the parts for gradient accumulation."""
        share = self.share(batch)
        n = len(share) // self._accumulate
        for first in range(share.start, share.stop, n):
            yield range(first, first + n)

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient of a part's loss, scaled so that the parts sum to their mean."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Iterable[Tensor], largest: float) -> float:
        """Average the gradients over the processes, clip them to `largest`, return their norm."""
        trained = list(parameters)
        if self.count > 1:
            gradients = [p.grad for p in trained if p.grad is not None]
            _in_buckets(gradients, lambda flat: self._accelerator.reduce(flat, "mean"))
        return float(self._accelerator.clip_grad_norm_(trained, largest))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Return the means over the processes."""
        if self.count == 1:
            return values
        own = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        return dict(zip(values, self._accelerator.reduce(own, "mean").tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true in any process."""
        return any(self.mean({"": float(flag)}).values())

    def gather(self, own: list[T]) -> list[T]:
        """Return the concatenated lists of all processes; the items must be picklable."""
        gathered: list[T] = gather_object(own) if self.count > 1 else own
        return gathered

    def union(self, own: dict[str, str]) -> dict[str, str]:
        """Return the union of the entries of all processes."""
        if not self.any(bool(own)):
            return {}
        return {key: value for one in self.gather([own]) for key, value in one.items()}

    def equal_weights(self, parameters: Iterable[Tensor]) -> None:
        """Copy the weights of the first process, as random ones may differ between machines."""
        if self.count > 1:
            with torch.no_grad():
                _in_buckets(list(parameters), broadcast)

    def agree(self, values: dict[str, object]) -> None:
        """Check that values are the same in all processes.

        `values`: description → value in this process.

        Raises:
            ConfigError: a process has a different value than the first.
        """
        first, *others = self.gather([values])
        for i, other in enumerate(others, 1):
            for what, value in first.items():
                if other[what] != value:
                    raise ConfigError(
                        f"process {i} has another {what} than process 0; every machine needs the "
                        "same recipe, and `out` in a folder that all share"
                    )

    def by_first(self, work: Callable[[], None]) -> None:
        """Call a function in the first process; if it fails there, raise in all processes.

        Raises:
            Exception: the original error, in the first process.
            TrainingError: in the other processes.
        """
        error: Exception | None = None
        if self.first:
            try:
                work()
            except Exception as caught:
                error = caught
        if self.any(error is not None):
            raise error or TrainingError("process 0 failed; see its message")


def _check_launcher(device: torch.device) -> None:
    for name, other in (("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true"):
            raise ConfigError(
                f"the launcher asks for {other}; hbr trains with a whole model in every process, "
                "so launch it without (see docs/training-cluster.md)"
            )
    if world_size() > 1 and "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            f"WORLD_SIZE is {world_size()}, but there is no LOCAL_RANK; "
            "start several processes with torchrun or accelerate launch"
        )
    if world_size() > 1 and device.index is not None:
        raise ConfigError(
            f"device is {device}, but there are {world_size()} processes, each with its own "
            f"device; give {device.type}"
        )


@torch.no_grad()
def _in_buckets(tensors: list[Tensor], change: Callable[[Tensor], Tensor]) -> None:
    """Apply `change` to tensors in place, flattened into buckets."""
    while tensors:
        bucket: list[Tensor] = []
        size = 0
        while tensors and (not bucket or size + tensors[0].numel() <= _BUCKET):
            bucket.append(tensors[0])
            size += tensors[0].numel()
            tensors = tensors[1:]
        flat = change(torch.cat([t.reshape(-1) for t in bucket]))
        for tensor, new in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
            tensor.copy_(new.view(tensor.shape))
