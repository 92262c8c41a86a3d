"""`hbr warmup`."""

from __future__ import annotations

from typing import Annotated

import typer

from hbr.apps.cli.reporting import Reporter
from hbr.apps.cli.restoring import DecoderOption


def warmup(
    model: Annotated[str, typer.Option(help="A known model, or a .safetensors file.")] = "nano",
    fidelity: Annotated[
        float | None, typer.Option(help="As for hbr restore; a graph is made for each.")
    ] = None,
    decoder: DecoderOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the CPU. Default: one per core.")
    ] = None,
) -> None:
    """Make hbr restore start faster on this machine, by a graph for ONNX Runtime (extra onnx).

    The graph of the model is made and compared with it, and both are timed. From then on hbr
    restore takes, for each job, what takes less time; its records name it as the backend.
    `--backend eager` is the model in torch, as before. The folder of the graph goes to stdout; it
    may be deleted.
    """
    from hbr.processes import set_threads

    set_threads(threads)
    reporter = Reporter(as_json=False)
    with reporter.listening():
        from hbr.restoration.batch.backends import warm_up

        folder, measured = warm_up(model, fidelity, decoder)
    for name, seconds in measured.seconds.items():
        reporter.say(
            "info", f"{name}: {seconds.start:.2f} s to start, {seconds.tile:.3f} s for a tile"
        )
    typer.echo(folder)
