"""`hbr train --plan`: what a training will take, in words or as JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import typer

from hbr.apps.cli.reporting import print_table

if TYPE_CHECKING:
    from hbr.training.config import TrainConfig
    from hbr.training.cost import TrainingPlan


def show_plan(recipe: TrainConfig, processes: int, device: str, *, as_json: bool) -> None:
    """Print what the recipe will take on `processes` devices of a kind ("cuda", "cpu", …)."""
    from hbr.training.cost import plan

    # what is neither, such as Apple's, computes norms as CUDA does
    found = plan(recipe, processes, "cpu" if device == "cpu" else "cuda")
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(found), "peak": found.peak}, indent=1))
        return
    _parameters(found)
    _memory(found)
    _work(found, recipe.precision)


def _parameters(found: TrainingPlan) -> None:
    rows = [
        (name, f"{part.trained:,}", f"{part.frozen:,}") for name, part in found.parameters.items()
    ]
    print_table(("parameters", "trained", "frozen"), rows)


def _memory(found: TrainingPlan) -> None:
    columns = ("steps", "crop", "batch", "at once", "weights", "AdamW, average", "passing", "peak")
    rows = [
        (
            *(f"{n:,}" for n in (phase.steps, phase.crop, phase.batch, phase.at_once)),
            *(_gb(n) for n in (phase.weights, phase.kept, phase.passing, phase.peak)),
        )
        for phase in found.phases
    ]
    print_table(columns, rows)
    typer.echo(
        f"Each of {found.processes} process(es) needs {_gb(found.peak)}, and the libraries' own "
        "workspaces on top. Passing: gradients and activations at their most."
    )
    if "regularizer's adapters" in found.parameters:
        more = _gb(2 * found.unet_bytes)
        typer.echo(f"Three U-Nets in place of one with two sets of adapters: {more} more.")


def _work(found: TrainingPlan, precision: str) -> None:
    from hbr.training.cost import HARDWARE, UTILISATION

    typer.echo(f"Work: {found.flops / 1e15:,.1f} PFLOP, validation left out.")
    if not found.hours:
        typer.echo(f"No hours are given for {precision}.")
        return
    rows = [
        (
            f"{found.processes} × {name}",
            f"{hours:,.2g}" if hours < 10 else f"{hours:,.0f}",
            "yes" if found.peak < HARDWARE[name].memory * 1e9 else "no",
        )
        for name, hours in found.hours.items()
    ]
    print_table(("hardware", "hours", "memory is enough"), rows)
    typer.echo(
        f"Hours assume {UTILISATION:.0%} of the maker's dense bf16 rate; no such device was timed."
    )


def _gb(n: int) -> str:
    return f"{n / 1e9:.2f} GB"
