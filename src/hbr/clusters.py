"""Clusters of Ray: connecting to one, its room for actors, and what an actor does at its start."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hbr.config import check
from hbr.errors import HbrError
from hbr.processes import set_threads

_OBJECTS = 128 << 20  # bytes of the object store of a Ray that is started here


class ClusterError(HbrError):
    """No work can be done on a cluster; one line says why, and what to do."""


def check_options(
    address: str | None, workers: int | None, gpus: float | None, memory: int | None
) -> None:
    """Check how a cluster is used.

    Args:
        address: see `connected`.
        workers: number of actors; None takes as many as there is room for.
        gpus: GPUs for each actor; parts of one let several share it.
        memory: bytes that Ray sets aside for each actor.

    Raises:
        ConfigError: a value cannot be.
    """
    ok = not (address or "").startswith("ray://")
    check(ok, "address", address, "auto or HOST:PORT, on a machine of the cluster")
    check(workers is None or workers >= 1, "workers", workers, "1 or more")
    ok = gpus is None or 0 <= gpus < 1 or gpus == int(gpus)
    check(ok, "gpus", gpus, "a part of one, or whole ones")
    check(memory is None or memory > 0, "memory", memory, "bytes, above 0")


@contextlib.contextmanager
def connected(address: str | None, cores: int | None) -> Iterator[Any]:
    """Ray, connected; a Ray that was started here is shut down at the end of the block.

    Args:
        address: `auto` for the cluster that this machine belongs to, or `HOST:PORT` of its head;
            None takes the variable RAY_ADDRESS, or starts Ray on this machine.
        cores: of a Ray that is started here; None takes all.

    Raises:
        ClusterError: Ray is not installed, or no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the rest is in Ray's own files
    try:
        import ray
        import ray.data
    except ImportError:
        raise ClusterError(
            "--engine ray needs the extra `ray`: pip install 'hbr[ray]' brings Ray Data"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {"address": address}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": _OBJECTS}
        options["num_cpus"] = cores
    with _keep_sigterm_handler():
        try:
            _probe(address)
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            ray.shutdown()
            raise ClusterError(
                f"no cluster of Ray can be reached at {address} ({last_line(error)})"
            ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Connect to HOST:PORT once; Ray itself would retry for minutes.

    Raises:
        OSError: nothing listens there.
        ValueError: the address is malformed.
    """
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("it is neither auto nor of the form HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextlib.contextmanager
def _keep_sigterm_handler() -> Iterator[None]:
    """Restore the SIGTERM handler, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def room_for(ray: Any, needs: Mapping[str, float], workers: int | None) -> int:
    """How many actors to start, at least one.

    Args:
        ray: connected.
        needs: what one actor takes of a machine, in the words of Ray's resources.
        workers: the most that are wanted.

    Raises:
        ClusterError: no machine has room for one.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = sum(
        min(int(has.get(name, 0) / n + 1e-6) for name, n in needs.items() if n) for has in machines
    )
    if not room:
        wanted = ", ".join(f"{n:g} {name}" for name, n in needs.items() if n)
        raise ClusterError(
            f"no machine of the {len(machines)} of the cluster has room for one worker, which "
            f"needs {wanted}"
        )
    return room if workers is None else min(workers, room)


def settle_in(folder: Path, modules: Sequence[str], *, threads: int) -> None:
    """Make the process of an actor like that of the driver.

    Args:
        folder: the driver's, from which relative paths count.
        modules: where the driver finds modules, `sys.path`.
        threads: of the libraries in the actor.
    """
    set_threads(threads)
    sys.path += [path for path in modules if path not in sys.path]
    with contextlib.suppress(OSError):
        os.chdir(folder)


def last_line(error: BaseException) -> str:
    """The end of an error of Ray, whose messages have many lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
