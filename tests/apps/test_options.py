"""The frozen list of command-line options: adding, renaming or removing one is a decision."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from hbr.apps.cli.main import app

LIST = Path(__file__).parent / "options.txt"


def options_of(command: Any, path: str) -> Iterator[str]:
    """A line for each argument and each option, with all its spellings, of all commands below."""
    for parameter in command.params:
        names = [*parameter.opts, *parameter.secondary_opts]
        yield f"{path} {' '.join(names) if parameter.opts[0].startswith('-') else parameter.name}"
    for name, child in getattr(command, "commands", {}).items():
        yield from options_of(child, f"{path} {name}")


def test_every_option_is_in_the_list() -> None:
    options = sorted(options_of(typer.main.get_command(app), "hbr"))
    assert len(options) > 100
    listed = LIST.read_text(encoding="utf-8").splitlines()
    message = f"write the option into {LIST.name} if it is needed; it is a promise to users"
    assert options == listed, message
