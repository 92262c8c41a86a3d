"""The options of `hbr restore` alone: people, sampling in many steps, what is written besides."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hbr.apps.cli.restoring import wrong_option
from hbr.files import STDIO

if TYPE_CHECKING:
    from hbr.models.protocol import Sampling
    from hbr.restoration.batch.previews import Previews
    from hbr.restoration.settings import PeopleMode

PeopleModeOption = Annotated[
    Literal["off", "auto", "only"] | None,
    typer.Option(
        metavar="off|auto|only",
        help="Find people and restore them for themselves; only: leave all else as it is. "
        "Default: off; only with --person or --box.",
    ),
]
PeopleFromOption = Annotated[
    str,
    typer.Option(
        metavar="auto|DETECTOR|FILE",
        help="Where people are: a detector (auto: the best that is here), or boxes: a .json of "
        "COCO, a .txt of YOLO or a folder of them.",
    ),
]
PersonOption = Annotated[
    str | None,
    typer.Option(
        metavar="1,3", help="Restore only these people, numbered from 1, from left to right."
    ),
]
BoxOption = Annotated[
    list[str] | None,
    typer.Option(metavar="X,Y,W,H", help="A person, in pixels of the photo; may be repeated."),
]
PersonFidelityOption = Annotated[
    str | None,
    typer.Option(metavar="1=0.8,3=0", help="The fidelity of single people, by number."),
]
OutlinesOption = Annotated[
    str,
    typer.Option(
        metavar="auto|none|MODEL",
        help="With people: a segmentation that says which pixels are theirs; auto: "
        "selfie-segmentation if it is here (hbr fetch people).",
    ),
]
IdentityOption = Annotated[
    Literal["off", "warn", "keep"],
    typer.Option(
        help="Compare every face with itself, before and after. warn: tell of one that may have "
        "become another person's; keep: restore it once more, at the model's faithful end."
    ),
]
BackgroundOption = Annotated[
    str,
    typer.Option(
        metavar="model|keep|NAME",
        help="With --people auto, what becomes of all else: restored by the model or another "
        "one, or left as it is.",
    ),
]
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
GrainOption = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="How much of the photo's own grain is put back, from 0 to 1: noise of its strength "
        "and look, measured where the photo is flat.",
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PAGE.html",
        help="Write one HTML page about the batch: before and after, people, times, warnings, "
        "failures. It works offline.",
    ),
]
SaveMapOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write a grey picture for each output there, brighter where it shows detail that the "
        "photo does not.",
    ),
]


def people_settings(
    asked: PeopleMode | None,
    source: str,
    boxes: list[str] | None,
    persons: str | None,
    fidelity: str | None,
    outlines: str,
    background: str,
) -> dict[str, Any]:
    """The fields `people` and `choice` of the settings.

    Args:
        asked: for `--people`; None is "only" where somebody is chosen, else "off".
        source, boxes, persons, fidelity, outlines, background: the text of the options.

    Raises:
        typer.BadParameter: a text that cannot be read, or options that do not go together.
    """
    from hbr.config import ConfigError
    from hbr.restoration.settings import (
        PeopleChoice,
        parse_box,
        parse_person_fidelity,
        parse_persons,
    )

    mode: PeopleMode = "only" if boxes or persons else "off"
    if asked is not None:
        mode = asked
    used = {
        "--people-from": source != "auto",
        "--person": persons is not None,
        "--box": bool(boxes),
        "--person-fidelity": fidelity is not None,
        "--outlines": outlines != "auto",
        "--background": background != "model",
    }
    given = [name for name, is_given in used.items() if is_given]
    if mode == "off" and given:
        raise typer.BadParameter("needs --people auto or only.", param_hint=given[0])
    if boxes and source != "auto":
        raise typer.BadParameter("choose one of the two.", param_hint="--box and --people-from")
    try:
        choice = PeopleChoice(
            source=source,
            boxes=tuple(parse_box(text) for text in boxes or ()),
            persons=() if persons is None else parse_persons(persons),
            fidelity=() if fidelity is None else parse_person_fidelity(fidelity),
            outlines=outlines,
            background=background,
        )
        return {"people": mode, "choice": choice}
    except ConfigError as error:
        raise wrong_option(error) from None


def sampling_of(
    steps: int | None, guidance: float | None, text_guidance: float | None, sampler: str | None
) -> Sampling | None:
    """How a model of many steps samples; None if no option says so."""
    from hbr.config import ConfigError
    from hbr.models.protocol import Sampling

    given: dict[str, Any] = {"steps": steps, "guidance": guidance}
    given |= {"text_guidance": text_guidance, "sampler": sampler}
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
