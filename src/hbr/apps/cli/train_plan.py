"""`hbr train --plan`: the estimated cost of a training, as text or JSON."""

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
    _parameters(found)
    _memory(found)
    _work(found, recipe.precision)
    # a recipe inherits those of its base
    mixed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
    typer.echo(f"Degradations: {mixed}.")


def _parameters(found: TrainingPlan) -> None:
    rows = [
        (name, f"{part.trained:,}", f"{part.frozen:,}") for name, part in found.parameters.items()
    ]
    print_table(("parameters", "trained", "frozen"), rows)


def _memory(found: TrainingPlan) -> None:
    columns = (
        "steps",
        "crop",
        "batch",
        "micro-batch",
        "weights",
        "AdamW, EMA",
        "transient",
        "peak",
    )
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
        f"Hours assume {UTILISATION:.0%} of the vendor's dense bf16 rate; they are not measured."
    )


def _gb(n: int) -> str:
    return f"{n / 1e9:.2f} GB"
