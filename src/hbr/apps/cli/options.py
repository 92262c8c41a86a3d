"""Options shared by several commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse photos with more pixels (width x height).")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Include photos in sub-folders.")]
MeasuringWorkers = Annotated[
    int | None,
    typer.Option(min=0, help="Measuring processes; 0: only this one; default: one per core."),
]
MetricWeights = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder of metric weights. Default: hbr's own.")
]
