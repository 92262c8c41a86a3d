"""The `hbr` command: registers subcommands and turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hbr.apps.cli import (
    benchmark,
    compare,
    curate,
    degrade,
    desktop,
    doctor,
    evaluate,
    fetching,
    methods,
    metrics,
    models,
    recipes,
    replay,
    restore,
    serve,
    study,
    train,
    warmup,
    watch,
)
from hbr.devices import is_out_of_memory
from hbr.errors import ExitCode, HbrError, reason, with_type
from hbr.files import STDIO
from hbr.version import __version__


class _Stopped(Exception):  # noqa: N818
    """Ctrl-C as an exception that typer does not intercept."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise _Stopped from None


app = typer.Typer(
    name="hbr",
    cls=_Commands,
    help="Restore photographs of people.",
    epilog="Set HBR_DEBUG=1 to see the traceback of an error.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("restore")(restore.restore)
app.command("replay")(replay.replay)
app.command("watch")(watch.watch)
app.command("warmup")(warmup.warmup)
app.command("open")(desktop.open_photos)
app.command("desktop")(desktop.desktop)
app.command("serve")(serve.serve)
app.command("ui")(serve.ui)
app.command("compare")(compare.compare)
app.command("fetch")(fetching.fetch)
app.add_typer(models.app, name="models")
app.add_typer(methods.app, name="methods")
app.add_typer(metrics.app, name="metrics")
app.add_typer(curate.app, name="curate")
app.command("degrade")(degrade.degrade)
app.command("train")(train.train)
app.add_typer(recipes.app, name="recipes")
app.command("evaluate")(evaluate.evaluate)
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(study.app, name="study")
app.command("doctor")(doctor.doctor)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hbr {__version__}")
        raise typer.Exit


@app.callback()
def _hbr(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the requested command and exit with one of `ExitCode`."""
    try:
        code = app(prog_name="hbr", standalone_mode=False)
        # a full disk or a closed pipe may only surface here
        sys.stdout.flush()
    except SystemExit as stop:
        # typer turns a broken pipe into SystemExit
        broken_pipe = isinstance(stop.__context__, BrokenPipeError)
        code = _report_error(BrokenPipeError()) if broken_pipe else stop.code
    except (KeyboardInterrupt, _Stopped):
        typer.echo("stopped", err=True)
        code = ExitCode.INTERRUPTED
    except Exception as error:
        code = _report_error(error)
    _discard_unwritable_output()
    sys.exit(code if isinstance(code, int) else ExitCode.OK)


def _report_error(error: Exception) -> int:
    """Print the error as one line and return the exit code."""
    if isinstance(error, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    if os.environ.get("HBR_DEBUG", "0") not in ("", "0"):
        traceback.print_exception(error)
    line, code = _describe(error)
    typer.echo(f"hbr: {' '.join(line.split())}", err=True)
    return code


def _describe(error: Exception) -> tuple[str, int]:
    if hasattr(error, "format_message"):  # typer's usage errors
        return _usage(error), int(getattr(error, "exit_code", ExitCode.USAGE))
    if isinstance(error, HbrError):
        return error.line, error.exit_code
    if is_out_of_memory(error):
        return (
            "out of memory; use smaller tiles (--tile), crops or batches, or --device cpu",
            ExitCode.MEMORY,
        )
    if isinstance(error, OSError) and error.strerror:
        return reason(error), ExitCode.NOTHING
    return (
        f"unexpected error: {with_type(error)} (set HBR_DEBUG=1 for the traceback)",
        ExitCode.NOTHING,
    )


def _usage(error: Any) -> str:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "hbr"
    if type(error).__name__ == "NoArgsIsHelpError":
        return f"missing command; see {path} --help"
    message = error.format_message().rstrip(".")
    return f"{message}; {_hint(message)}see {path} --help"


def _hint(message: str) -> str:
    """What a usage error may come from, if a shell has put names of files among the arguments."""
    if "unexpected extra argument" in message and any(map(os.path.lexists, sys.argv[2:])):
        return "put a pattern in quotes if the shell expands it; "
    if "No such option" in message and any(
        name.startswith("-") and name != STDIO and os.path.lexists(name) for name in sys.argv[2:]
    ):
        return "give a file whose name begins with - as ./-name; "
    return ""


def _discard_unwritable_output() -> None:
    """Keep the interpreter from reporting the same write error again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
