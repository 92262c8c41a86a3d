"""`hbr desktop`, an entry in the menus of a Linux desktop, and `hbr open`, which it runs."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hbr.apps.cli.restoring import ModelOption, load_restorer, restore_settings

if TYPE_CHECKING:
    from hbr.restoration import Restorer

_MIME_TYPES = (
    *("image/jpeg", "image/png", "image/tiff", "image/webp", "image/bmp", "image/avif"),
    *("image/heic", "image/heif", "image/jxl"),
)
_FOLDER = "restored"
_PATIENCE = 30.0  # seconds for a program of the desktop


def desktop(
    remove: Annotated[bool, typer.Option("--remove", help="Remove the entry.")] = False,
) -> None:
    """Add hbr to the menus of a Linux desktop, and to "Open with" of photos, for this user.

    The entry runs `hbr open`. Its file goes to stdout.
    """
    if sys.platform in ("win32", "darwin"):
        raise typer.BadParameter("only desktops that follow freedesktop.org have such entries.")
    from hbr.files import write_text

    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    file = Path(data) / "applications" / "hbr.desktop"
    if remove:
        file.unlink(missing_ok=True)
    else:
        write_text(file, entry([sys.executable, "-m", "hbr.apps.cli.main", "open"]))
    _run("update-desktop-database", str(file.parent))
    typer.echo(file)


def entry(command: list[str]) -> str:
    """The text of a desktop entry that runs a command with the files that are opened.

    Reference: Desktop Entry Specification 1.5, freedesktop.org.
    """
    lines = [
        "[Desktop Entry]",
        "Type=Application",
        "Version=1.5",
        "Name=hbr",
        "GenericName=Photo restorer",
        "Comment=Restore photographs of people",
        f"Exec={' '.join(map(_quoted, command))} %F",
        "Icon=image-x-generic",
        "Terminal=false",
        "Categories=Graphics;Photography;",
        f"MimeType={';'.join(_MIME_TYPES)};",
    ]
    return "\n".join(lines) + "\n"


def _quoted(argument: str) -> str:
    """An argument of the key Exec: quoted, then escaped as every string of an entry."""
    if not re.fullmatch(r"[\w./+-]+", argument, re.ASCII):
        argument = '"' + re.sub(r'(["`$\\])', r"\\\1", argument) + '"'
    return argument.replace("\\", "\\\\").replace("%", "%%")


def open_photos(
    photos: Annotated[
        list[Path] | None, typer.Argument(metavar="PHOTO", show_default=False, help="Photos.")
    ] = None,
    model: ModelOption = "nano",
) -> None:
    """Restore photos into a folder "restored" beside them, and show it.

    Photos that were restored before are kept as they are. This is what "Open with" runs; without a
    photo, it opens the page of `hbr ui`.
    """
    if not photos:
        from hbr.apps.cli.serve import ui

        ui([model])
        return
    from hbr.apps.cli.planned import run_planned
    from hbr.apps.cli.reporting import Reporter
    from hbr.errors import ExitCode
    from hbr.restoration.batch.backends import Wanted
    from hbr.restoration.batch.contents import ByContents
    from hbr.restoration.batch.jobs import plan_batch
    from hbr.restoration.batch.outputs import Files

    settings, codes = restore_settings(), {}

    @cache  # for the photos of all folders
    def restorer() -> Restorer:
        return load_restorer(Wanted(model=model), settings)

    for folder in dict.fromkeys(photo.parent for photo in photos):
        given = [str(photo) for photo in photos if photo.parent == folder]
        codes[folder] = run_planned(
            partial(plan_batch, given, str(folder / _FOLDER), existing=ByContents(None)),
            lambda plan: restorer(),
            settings,
            Files(recipe="file"),
            reporter=Reporter(as_json=False),
            hint="; open them again to continue",
        )
    code = max(codes.values())
    words = "not all photos could be restored" if code else "photos are restored"
    _run("notify-send", "--app-name=hbr", f"hbr: {words}", f"They are in {_FOLDER}.")
    done = [folder for folder in codes if codes[folder] in (ExitCode.OK, ExitCode.SOME)]
    if done:
        _run("xdg-open", str(done[0] / _FOLDER))
    raise typer.Exit(ExitCode.SOME if done and code else code)


def _run(program: str, *arguments: str) -> None:
    """Run a program of the desktop, if there is one."""
    if path := shutil.which(program):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run([path, *arguments], timeout=_PATIENCE, check=False, capture_output=True)
