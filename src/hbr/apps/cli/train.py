"""`hbr train`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hbr.apps.cli.recipes import Settings, recipe_file
from hbr.distributed import rank, world_size
from hbr.errors import ExitCode, OutOfMemoryError


def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A recipe name (see hbr recipes list) or a YAML file."
        ),
    ],
    settings: Settings = None,
    device: Annotated[
        str, typer.Option(help="Device to train on: auto, cpu, cuda, cuda:1 or mps.")
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints, curves and images. Default: the recipe's `out`."
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print the estimated memory and hours, and exit.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, help="With --plan: number of devices that share each batch.")
    ] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="With --plan: print JSON.")] = False,
) -> None:
    """Train a model from a recipe; the same command resumes an interrupted run.

    Progress goes to stderr; the last line, on stdout, is the model file. Use torchrun to train on
    several GPUs or machines: see docs/training-cluster.md. --plan neither reads photos nor loads
    weights, and assumes a CUDA device unless --device is given.
    """
    if not plan and (as_json or processes != 1):
        raise typer.BadParameter("only valid with --plan", param_hint="--json, --processes")

    from hbr.training.recipe import load_recipe

    config = load_recipe(recipe_file(recipe), settings or ())
    if out is not None:
        config = dataclasses.replace(config, out=out)

    if plan:
        from hbr.apps.cli.train_plan import show_plan

        show_plan(config, processes, "cuda" if device == "auto" else device, as_json=as_json)
        return
    from hbr.devices import choose_device, is_out_of_memory
    from hbr.training.loop import Trainer

    try:
        chosen = str(choose_device(device))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--device") from None
    try:
        trainer = Trainer(config, device=chosen, report=_report)
        model = trainer.run()
    except KeyboardInterrupt:
        launcher = "with the same launcher, " if world_size() > 1 else ""
        command = shlex.join(["hbr", *sys.argv[1:]])
        if rank() == 0:
            _report(f"stopped; {launcher}the same command resumes: {command}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"out of memory on {chosen}; increase optim.accumulate, set memory.checkpointing or "
            "memory.decode_crop, or use smaller batches; --plan estimates the memory needed"
        ) from error
    if rank() == 0:
        typer.echo(model)


_report = partial(typer.echo, err=True)
