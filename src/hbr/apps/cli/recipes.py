"""`hbr recipes list | show | copy`, and resolving the RECIPE argument of other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hbr.apps.cli.reporting import print_table
from hbr.recipes import find_recipe, recipe_names

app = typer.Typer(
    help="The recipes that come with hbr, for training and curation.", no_args_is_help=True
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="A recipe name (see hbr recipes list).")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override one setting of the recipe, e.g. optim.lr=1e-4; may be repeated.",
    ),
]


@app.command("list")
def list_recipes() -> None:
    """List the recipes with the first line of each header."""
    rows = []
    for name in recipe_names():
        first = _text(name).splitlines()[0]
        rows.append((name, first.removeprefix("# ")))
    print_table(("name", "summary"), rows)


@app.command("show")
def show(name: _Name) -> None:
    """Show a recipe: a header with command, hardware, hours and result, then the settings."""
    typer.echo(_text(name), nl=False)


@app.command("copy")
def copy(
    name: _Name,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.yaml", help="Default: the last part of NAME, here."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing file.")
    ] = False,
) -> None:
    """Copy a recipe to a file that you can edit; the file name goes to stdout."""
    from hbr.files import write_text

    text = _text(name)
    file = out or Path(f"{name.split('/')[-1]}.yaml")
    if file.exists() and not overwrite:
        raise typer.BadParameter(
            f"{file} exists; choose another file, or replace it with --overwrite",
            param_hint="--output",
        )
    write_text(file, text)
    typer.echo(file)


def recipe_file(given: str, group: str = "") -> Path:
    """Return the file of a recipe given by path or by name.

    Raises:
        typer.BadParameter: there is neither a file nor a recipe of that name.
    """
    path = Path(given)
    if path.exists() and not path.is_dir():
        return path
    found = find_recipe(given, group)
    if found is None:
        raise typer.BadParameter(
            f"there is no file or recipe {given!r}; see hbr recipes list",
            param_hint="RECIPE",
        )
    return found


def _text(name: str) -> str:
    file = find_recipe(name, "curation")
    if file is None:
        raise typer.BadParameter(
            f"there is no recipe {name!r}; see hbr recipes list", param_hint="NAME"
        )
    return file.read_text(encoding="utf-8")
