"""`hbr recipes list | show | copy`, and the recipe that another command is given."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hbr.apps.cli.reporting import print_table
from hbr.recipes import find_recipe, recipe_names

app = typer.Typer(
    help="The recipes that come with hbr, for training and curation.", no_args_is_help=True
)

_Name = Annotated[str, typer.Argument(metavar="NAME", help="As hbr recipes list gives it.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change one setting of the recipe, as optim.lr=1e-4; repeatable.",
    ),
]


@app.command("list")
def list_recipes() -> None:
    """List the recipes by name, with the first line of what each says of itself."""
    rows = []
    for name in recipe_names():
        first = _text(name).splitlines()[0]
        rows.append((name, first.removeprefix("# ")))
    print_table(("name", "what"), rows)


@app.command("show")
def show(name: _Name) -> None:
    """Show a recipe: its header with command, hardware, hours and result, and its settings."""
    typer.echo(_text(name), nl=False)


@app.command("copy")
def copy(
    name: _Name,
    out: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE.yaml", help="Default: the name's last part, here."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that exists.")
    ] = False,
) -> None:
    """Copy a recipe into a file of your own, to be changed; the file's name goes to stdout."""
    from hbr.files import write_text

    text = _text(name)
    file = out or Path(f"{name.split('/')[-1]}.yaml")
    if file.exists() and not overwrite:
        raise typer.BadParameter(
            f"{file} exists; name another file, or replace it with --overwrite",
            param_hint="--output",
        )
    write_text(file, text)
    typer.echo(file)


def recipe_file(given: str, group: str = "") -> Path:
    """The file of the recipe that a command is given by path or by name.

    Raises:
        typer.BadParameter: there is neither such a file nor such a recipe.
    """
    path = Path(given)
    if path.exists() and not path.is_dir():
        return path
    found = find_recipe(given, group)
    if found is None:
        raise typer.BadParameter(
            f"there is no file {given!r}, and no recipe of that name; hbr recipes list shows all",
            param_hint="RECIPE",
        )
    return found


def _text(name: str) -> str:
    file = find_recipe(name, "curation")
    if file is None:
        raise typer.BadParameter(
            f"there is no recipe {name!r}; hbr recipes list shows all", param_hint="NAME"
        )
    return file.read_text(encoding="utf-8")
