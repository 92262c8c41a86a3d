"""The processes of a training: who takes which crops, and how they agree.

Every process holds the whole model and takes its share of each batch; before an update their
gradients become the mean. The model is not wrapped (`DistributedDataParallel`), because it is used
by its parts, not by its `forward`, and because one step runs the U-Net under several sets of
adapters and makes two updates of different parameters. What is trained of a large model is its
adapters, so that one reduction before each update costs little; and with one process, nothing is
computed that would not be without any of this.
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

# Elements that are sent at once: few calls, little memory.
_BUCKET = 2**25


class Processes:
    """All processes of a training, as one of them sees it.

    They are started by `torchrun` or `accelerate launch`; without those, there is one.

    Args:
        device: where this process computes. With several of them it is the kind alone, and each
            takes the device of its number.
        config: the training.

    Attributes:
        count: how many there are.
        index: this one's number, from 0.

    Raises:
        ConfigError: the device, the launcher or the batch does not go with so many processes.
    """

    def __init__(self, device: str, config: TrainConfig) -> None:
        self._wanted = torch.device(device)
        self._precision = "bf16" if config.precision == "bfloat16" else "no"
        self._accumulate = config.optim.accumulate
        _check_launcher(self._wanted)
        self.begin()
        for i, phase in enumerate(config.phases):
            n = self.count * self._accumulate
            if phase.batch % n:
                raise ConfigError(
                    f"phases[{i}].batch is {phase.batch}; with {self.count} processes and "
                    f"optim.accumulate {self._accumulate} it must be a multiple of {n}"
                )

    def begin(self) -> None:
        """Set Accelerate up for this training: it remembers one set of settings a process."""
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
        """Part from the others, when all is done."""
        self._accelerator.end_training()

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and tells."""
        return self.index == 0

    @property
    def device(self) -> torch.device:
        """Where this process computes."""
        return self._accelerator.device

    def autocast(self) -> AbstractContextManager[Any]:
        """The forward pass in the training's precision."""
        return self._accelerator.autocast()

    def share(self, batch: int) -> range:
        """The crops of a batch that are this process's."""
        return share_of(batch, self.index, self.count)

    def parts(self, batch: int) -> Iterator[range]:
        """This process's crops, in the parts that it takes one after the other."""
        share = self.share(batch)
        n = len(share) // self._accumulate
        for first in range(share.start, share.stop, n):
            yield range(first, first + n)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of a part's loss, as one of the parts that make the mean."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Iterable[Tensor], largest: float) -> float:
        """Norm of the gradients of all processes, which are made no larger than `largest`."""
        trained = list(parameters)
        if self.count > 1:
            gradients = [p.grad for p in trained if p.grad is not None]
            _in_buckets(gradients, lambda flat: self._accelerator.reduce(flat, "mean"))
        return float(self._accelerator.clip_grad_norm_(trained, largest))

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """The means over the processes."""
        if self.count == 1:
            return values
        own = torch.tensor(list(values.values()), dtype=torch.float64, device=self.device)
        return dict(zip(values, self._accelerator.reduce(own, "mean").tolist(), strict=True))

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return any(self.mean({"": float(flag)}).values())

    def gather(self, own: list[T]) -> list[T]:
        """The lists of all processes, one after the other; what is in them can be pickled."""
        gathered: list[T] = gather_object(own) if self.count > 1 else own
        return gathered

    def union(self, own: dict[str, str]) -> dict[str, str]:
        """The entries of all processes."""
        if not self.any(bool(own)):
            return {}
        return {key: value for one in self.gather([own]) for key, value in one.items()}

    def equal_weights(self, parameters: Iterable[Tensor]) -> None:
        """Take the first process's weights: random ones may differ from machine to machine."""
        if self.count > 1:
            with torch.no_grad():
                _in_buckets(list(parameters), broadcast)

    def agree(self, told: dict[str, object]) -> None:
        """Make sure that all processes say the same.

        Args:
            told: what it is, and its value here.

        Raises:
            ConfigError: one says another thing than the first.
        """
        first, *others = self.gather([told])
        for i, other in enumerate(others, 1):
            for what, value in first.items():
                if other[what] != value:
                    raise ConfigError(
                        f"process {i} has another {what} than process 0; every machine needs the "
                        "same recipe, and `out` in a folder that all share"
                    )

    def by_first(self, work: Callable[[], None]) -> None:
        """Do something in the first process; if it fails there, all end.

        Raises:
            Exception: the first process's error, in that process.
            TrainingError: in the others.
        """
        error: Exception | None = None
        if self.first:
            try:
                work()
            except Exception as caught:
                error = caught
        if self.any(error is not None):
            raise error or TrainingError("process 0 could not go on; it says why")


def _check_launcher(device: torch.device) -> None:
    for name, other in (("FSDP", "FSDP"), ("DEEPSPEED", "DeepSpeed")):
        if os.environ.get(f"ACCELERATE_USE_{name}", "").lower() in ("1", "true"):
            raise ConfigError(
                f"the launcher asks for {other}; hbr trains with a whole model in every process, "
                "so launch it without (docs/training-cluster.md)"
            )
    if world_size() > 1 and "LOCAL_RANK" not in os.environ:
        raise ConfigError(
            f"WORLD_SIZE is {world_size()}, but there is no LOCAL_RANK; "
            "start several processes by torchrun or accelerate launch"
        )
    if world_size() > 1 and device.index is not None:
        raise ConfigError(
            f"device is {device}, but there are {world_size()} processes, each with a device of "
            f"its own; give {device.type}"
        )


@torch.no_grad()
def _in_buckets(tensors: list[Tensor], change: Callable[[Tensor], Tensor]) -> None:
    """Change tensors in place, many at a time as one flat tensor."""
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
