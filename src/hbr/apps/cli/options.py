"""Options that several commands have, and that mean the same in each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
MaxPixels = Annotated[
    int, typer.Option(min=1, help="Refuse photos of more pixels (width x height).")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]
Recursive = Annotated[bool, typer.Option("--recursive", help="Take the photos in sub-folders too.")]
MeasuringWorkers = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that measure; 0: this one; default: one a core."),
]
MetricWeights = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Weights of metrics, where not hbr's own.")
]
