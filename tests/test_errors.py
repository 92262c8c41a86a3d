"""Errors: exit codes, HTTP statuses, and messages on one line."""

import ast
import builtins
import errno
import pickle
from pathlib import Path

import pytest

import hbr
from hbr.errors import (
    ExitCode,
    HbrError,
    OutOfMemoryError,
    PhotoError,
    display_name,
    one_line,
    reason,
    with_type,
)

SOURCE = Path(hbr.__file__).parent


def error_classes() -> dict[str, set[str]]:
    """Every class of the source that derives from an exception → the names of its bases."""
    classes = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for path in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    known = {n for n, v in vars(builtins).items() if isinstance(v, type) and is_error(v)}
    while more := {n for n, bases in classes.items() if bases & known} - known:
        known |= more
    return {name: classes[name] for name in sorted(known & set(classes))}


def is_error(kind: type) -> bool:
    return issubclass(kind, BaseException)


def test_every_error_class_is_an_hbr_error() -> None:
    classes = error_classes()
    assert {"ConfigError", "HbrError", "OutOfMemoryError", "PhotoError"} <= set(classes)
    known = {"HbrError"}
    while more := {n for n, bases in classes.items() if bases & known} - known:
        known |= more
    # signals: on the way to `main`, and from the progress of a job to its queue
    assert set(classes) - known == {"_Stopped", "_Cancelled"}


# by class: exit code, HTTP status, and the built-in class that callers may expect
STATUSES = {
    "hbr.config.ConfigError": (2, 422, ValueError),
    "hbr.curation.sources.base.SourceError": (1, 422, ValueError),
    "hbr.curation.record.CurationError": (1, 500, ValueError),
    "hbr.weights.sources.DownloadError": (4, 503, ValueError),
    "hbr.errors.OutOfMemoryError": (5, 507, MemoryError),
    "hbr.errors.PhotoError": (1, 422, ValueError),
    "hbr.evaluation.methods.base.MethodError": (1, 503, ValueError),
    "hbr.evaluation.pairing.PairingError": (1, 422, ValueError),
    "hbr.evaluation.study.store.StudyError": (1, 409, ValueError),
    "hbr.metrics.base.MetricError": (4, 503, ValueError),
    "hbr.models.exporting.hub.HubError": (1, 502, ValueError),
    "hbr.weights.sources.WeightsError": (4, 503, ValueError),
    "hbr.models.importing.ArgumentError": (2, 422, ValueError),
    "hbr.people.types.DetectorError": (4, 503, ValueError),
    "hbr.training.state.TrainingError": (1, 500, RuntimeError),
}


@pytest.mark.parametrize("name", STATUSES)
def test_an_error_carries_its_exit_code_and_http_status(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    kind = getattr(__import__(module, fromlist=[attribute]), attribute)
    exit_code, http_status, builtin = STATUSES[name]
    error = kind("first line\n  second line")
    assert isinstance(error, HbrError)
    assert isinstance(error, builtin)
    assert isinstance(error.exit_code, ExitCode)
    assert (error.exit_code, error.http_status) == (exit_code, http_status)
    assert error.line == "first line second line"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args) == (kind, error.args)


def test_an_error_without_a_message_is_named_by_its_class() -> None:
    assert one_line(KeyError()) == with_type(KeyError()) == reason(KeyError()) == "KeyError"
    assert one_line(ValueError(" \n")) == "ValueError"


def test_a_message_is_cut_at_the_limit() -> None:
    assert one_line(ValueError("a\n\tb   c"), 3) == "a b"
    assert with_type(RuntimeError("abc"), 2) == "RuntimeError: ab"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("not a\nnumber"), "not a number"),
        (PhotoError("a.png: is empty"), "a.png: is empty"),
        (MemoryError(), "MemoryError"),
        (OutOfMemoryError("use --tile 64"), "use --tile 64"),
        (RuntimeError("bad\nstate"), "RuntimeError: bad state"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a\nb"), "a\\nb: No such file"),
        (OSError(errno.EXDEV, "Other device", "a", None, "b"), "a: b: Other device"),
        (OSError("closed"), "OSError: closed"),
    ],
)
def test_the_reason_of_a_failure(error: BaseException, line: str) -> None:
    assert reason(error) == line


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (Path("a/b.png"), "a/b.png"),
        ("a\x1b[1m\u202e.png", "a\\x1b[1m\\u202e.png"),
        ("a\udcff.png", "a\\udcff.png"),
        (b"a\xff.png", "a\\udcff.png"),
        (object(), "input"),
    ],
)
def test_the_name_of_a_file_is_printable(source: object, name: str) -> None:
    assert display_name(source) == name
