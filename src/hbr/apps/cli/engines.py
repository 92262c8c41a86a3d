"""Where work is done: options of engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from hbr.restoration.batch.ray import RayActors

EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(help="Where to run: on this machine, or on a Ray cluster (extra `ray`)."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="auto|HOST:PORT",
        help="Address of the Ray head node. Default: start Ray on this machine.",
    ),
]
ActorsOption = Annotated[
    int | None, typer.Option(min=1, help="With ray: number of actors. Default: all that fit.")
]
ActorGpus = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="With ray: GPUs per actor; with 0.25, four actors share one. Default: 1 if the device "
        "is cuda.",
    ),
]
ActorMemory = Annotated[
    float | None, typer.Option(min=0.1, help="With ray: memory in GB to set aside per actor.")
]


def actors_of(
    engine: Literal["local", "ray"],
    device: str,
    threads: int | None,
    address: str | None,
    workers: int | None,
    gpus: float | None,
    memory: float | None,
) -> RayActors | None:
    """The actors of a cluster; None for this process, whose threads are set.

    Raises:
        typer.BadParameter: an option is for the other engine.
    """
    if engine == "local":
        from hbr.processes import set_threads

        given = {"ray-address": address, "workers": workers, "gpus": gpus, "memory": memory}
        for name, value in given.items():
            if value is not None:
                raise typer.BadParameter("only valid with --engine ray.", param_hint=f"--{name}")
        set_threads(threads)
        return None
    from hbr.restoration.batch.ray import RayActors

    if device.startswith("cuda:"):
        raise typer.BadParameter(
            f"{device}: Ray gives each actor its own GPU; take cuda.", param_hint="--device"
        )
    return RayActors(
        address=address,
        workers=workers,
        threads=threads or 1,
        gpus=float(device == "cuda") if gpus is None else gpus,
        memory=None if memory is None else int(memory * 1e9),
    )
