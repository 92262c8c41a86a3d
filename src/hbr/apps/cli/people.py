"""The options of `hbr restore` about people, from their text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hbr.apps.cli.restoring import wrong_option

if TYPE_CHECKING:
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
