"""The options of `hbr restore` for models that sample their result in many steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hbr.apps.cli.restoring import wrong_option
from hbr.files import STDIO

if TYPE_CHECKING:
    from hbr.models.protocol import Sampling
    from hbr.restoration.batch.previews import Previews

PoseOption = Annotated[
    str,
    typer.Option(
        metavar="auto|none|FILE",
        help="Pose, for models guided by it: found, blank, a drawn picture, or key points as .npy.",
    ),
]
AttentionOption = Annotated[
    str,
    typer.Option(
        metavar="auto|none|FILE",
        help="Map of the bodies, for models guided by it: found, blank, a grey picture, or "
        "values in [0, 1] as .npy.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(help="Steps of a sampling, 1 to 1000. Default: 50."),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(help="Strength of the guidance by body parts; 0: none. Default: 1."),
]
TextGuidanceOption = Annotated[
    float | None,
    typer.Option(help="Strength of the guidance by the text; 1: none. Default: 4."),
]
SamplerOption = Annotated[
    str | None,
    typer.Option(help="guided, ddpm, ddim or unipc; all but guided ignore --guidance."),
]
PreviewOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Of a sampling: write the picture so far beside each output, as NAME.preview.jpg, "
        "after every N steps, and remove it at the end.",
    ),
]
KeepPreviews = Annotated[
    bool,
    typer.Option(
        "--keep-previews", help="Keep each one, as NAME.step-010.jpg by its step, with --preview."
    ),
]


def sampling_of(
    steps: int | None, guidance: float | None, text_guidance: float | None, sampler: str | None
) -> Sampling | None:
    """How a model of many steps samples; None if no option says so."""
    given: dict[str, Any] = {"steps": steps, "guidance": guidance}
    given |= {"text_guidance": text_guidance, "sampler": sampler}
    from hbr.config import ConfigError
    from hbr.models.protocol import Sampling

    values = {name: value for name, value in given.items() if value is not None}
    try:
        return Sampling(**values) if values else None
    except ConfigError as error:
        raise wrong_option(error) from None


def previews_of(every: int | None, keep: bool, out: str, engine: str) -> Previews | None:
    """What writes the previews; None if no option asks for them."""
    if every is None:
        if keep:
            raise typer.BadParameter("only valid with --preview.", param_hint="--keep-previews")
        return None
    if engine != "local" or out == STDIO:
        why = "only valid with --engine local, and outputs that are files."
        raise typer.BadParameter(why, param_hint="--preview")
    from hbr.restoration.batch.previews import Previews

    return Previews(every, keep=keep)
