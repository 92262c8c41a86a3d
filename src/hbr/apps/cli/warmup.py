"""`hbr warmup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hbr.apps.cli.reporting import Reporter
from hbr.apps.cli.restoring import DecoderOption, ThreadsOption


def warmup(
    model: Annotated[str, typer.Option(help="A known model, or a .safetensors file.")] = "nano",
    fidelity: Annotated[
        float | None, typer.Option(help="As for hbr restore; a graph is made for each.")
    ] = None,
    decoder: DecoderOption = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Only make the graph that --dtype int8 runs, with its scales by photos in FOLDER "
            "(extra openvino).",
        ),
    ] = None,
    threads: ThreadsOption = None,
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
        from hbr.restoration.batch import calibration
        from hbr.restoration.batch.backends import Wanted, warm_up

        if calibrate is None:
            folder, measured = warm_up(model, fidelity, decoder)
            lines = [
                f"{name}: {seconds.start:.2f} s to start, {seconds.tile:.3f} s for a tile"
                for name, seconds in measured.seconds.items()
            ]
        else:
            wanted = Wanted(model=model, fidelity=fidelity, decoder=decoder)
            folder, made = calibration.calibrate(wanted, calibrate)
            mean = sum(made.psnr) / len(made.psnr)
            lines = [
                f"int8: {made.layers} convolutions, scales of {len(made.photos)} photos; PSNR of "
                f"{len(made.psnr)} others to float32: {mean:.1f} dB, at least {min(made.psnr):.1f}"
            ]
    for line in lines:
        reporter.say("info", line)
    typer.echo(folder)
