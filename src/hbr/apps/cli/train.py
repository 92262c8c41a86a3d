"""`hbr train`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.options import known_device
from hbr.apps.cli.recipes import Settings, recipe_file
from hbr.apps.cli.reporting import print_table, to_stderr
from hbr.distributed import rank, world_size
from hbr.errors import ExitCode, OutOfMemoryError

if TYPE_CHECKING:
    from hbr.training.config import TrainConfig
    from hbr.training.cost import TrainingPlan


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
        _show_plan(config, processes, "cuda" if device == "auto" else device, as_json=as_json)
        return
    from hbr.devices import is_out_of_memory
    from hbr.training.loop import Trainer

    chosen = known_device(device)
    try:
        trainer = Trainer(config, device=chosen, report=to_stderr)
        model = trainer.run()
    except KeyboardInterrupt:
        launcher = "with the same launcher, " if world_size() > 1 else ""
        command = shlex.join(["hbr", *sys.argv[1:]])
        if rank() == 0:
            to_stderr(f"stopped; {launcher}the same command resumes: {command}")
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


def _show_plan(recipe: TrainConfig, processes: int, device: str, *, as_json: bool) -> None:
    """Print the recipe's estimated cost on `processes` devices of one type ("cuda", "cpu", …)."""
    from hbr.training.cost import plan

    # other devices, such as mps, compute norms as CUDA does
    found = plan(recipe, processes, "cpu" if device == "cpu" else "cuda")
    weights = {name: weight for name, weight in recipe.data.degradations.items() if weight}
    shares = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    if as_json:
        made = dataclasses.asdict(found)
        typer.echo(json.dumps({**made, "peak": found.peak, "degradations": shares}, indent=1))
        return
    parts = [(name, f"{n.trained:,}", f"{n.frozen:,}") for name, n in found.parameters.items()]
    print_table(("parameters", "trained", "frozen"), parts)
    _memory(found)
    _work(found, recipe.precision)
    # a recipe inherits those of its base
    mixed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    typer.echo(f"Degradations: {mixed}.")


def _memory(found: TrainingPlan) -> None:
    sizes = ("steps", "crop", "batch", "micro-batch")
    columns = (*sizes, "weights", "AdamW, EMA", "transient", "peak")
    rows = [
        (
            *(f"{n:,}" for n in (phase.steps, phase.crop, phase.batch, phase.at_once)),
            *(_gb(n) for n in (phase.weights, phase.kept, phase.passing, phase.peak)),
        )
        for phase in found.phases
    ]
    print_table(columns, rows)
    typer.echo(
        f"Each of {found.processes} process(es) needs {_gb(found.peak)}, plus the libraries' own "
        "workspaces. Transient: peak of gradients and activations."
    )
    if found.assumed is not None:
        typer.echo(f"Assumed: {found.assumed}.")
    if found.peak_checkpointed is not None:
        typer.echo(
            "memory.checkpointing is auto: it is on where a device has too little memory for this, "
            f"and each needs {_gb(found.peak_checkpointed)} then."
        )
    if "regularizer's adapters" in found.parameters:
        more = _gb(2 * found.unet_bytes)
        typer.echo(f"Three U-Nets instead of one with two sets of adapters would need {more} more.")


def _work(found: TrainingPlan, precision: str) -> None:
    from hbr.training.cost import HARDWARE, UTILISATION

    typer.echo(f"Compute: {found.flops / 1e15:,.1f} PFLOP, without validation.")
    if not found.hours:
        typer.echo(f"No estimate of hours for {precision}.")
        return
    rows = [
        (
            f"{found.processes} × {name}",
            f"{hours:,.2g}" if hours < 10 else f"{hours:,.0f}",
            "yes" if found.peak < HARDWARE[name].memory * 1e9 else "no",
        )
        for name, hours in found.hours.items()
    ]
    print_table(("hardware", "hours", "fits in memory"), rows)
    typer.echo(
        f"Hours assume {UTILISATION:.1%} of the vendor's dense bf16 rate, as measured on an H100."
    )


def _gb(n: int) -> str:
    return f"{n / 1e9:.2f} GB"
