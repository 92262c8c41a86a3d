"""Real processes that train; they start fast, forked from one that has imported torch already."""

import json
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from hbr.apps.cli.main import main
from hbr.config import from_dict
from hbr.training.config import TrainConfig
from hbr.training.loop import Trainer

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["hbr.training.loop", "hbr.apps.cli.main", "hbr.apps.cli.train"])


def start(work: Callable[..., None], *arguments: object, count: int = 1) -> list[BaseProcess]:
    """Call `work` in so many processes, which find each other as torchrun's do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    processes = []
    for i in range(count):
        rank = {**together, "RANK": str(i), "LOCAL_RANK": str(i)} if count > 1 else {}
        processes.append(_CONTEXT.Process(target=_call, args=(rank, work, arguments)))
        processes[-1].start()
    return processes


def ends(processes: list[BaseProcess]) -> list[int | None]:
    """Wait for them; their exit codes."""
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def hbr(log: Path, *arguments: str) -> None:
    """Run the command; what it says goes to LOG.0, LOG.1 and so on, one for each process."""
    out = os.open(f"{log}.{os.environ.get('RANK', 0)}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    sys.argv = ["hbr", *arguments]
    main()


def record(values: dict[str, object], file: Path) -> None:
    """Train, and write the numbers of each step to a JSON file."""
    trainer = Trainer(from_dict(TrainConfig, values), report=lambda line: None)
    make, steps = trainer._step, []
    trainer._step = lambda pair: steps.append(make(pair)) or steps[-1]  # type: ignore[method-assign]
    trainer.run()
    if trainer.processes.first:
        file.write_text(json.dumps(steps))


def _call(rank: dict[str, str], work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    os.environ.update(rank)
    if rank:
        torch.set_num_threads(1)  # as torchrun has it: several of them share the cores
    work(*arguments)
