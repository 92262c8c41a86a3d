"""What a batch does beside the model: reading the next photo, encoding the last one."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hbr.image import Photo, read_photo, write_photo
from hbr.processes import StopSignals
from hbr.restoration.batch import beside, work
from hbr.restoration.batch.jobs import plan_batch
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.running import run_batch
from toy_batch import Done, invert, load

PATIENCE = 30
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def five_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Photos a to e in the folder `in`; no thread is left after them."""
    monkeypatch.chdir(tmp_path)
    for name in "abcde":
        pixels = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
        write_photo(Photo.from_array(pixels), f"in/{name}.png")
    yield
    assert not [t.name for t in threading.enumerate() if t.name.startswith("hbr-")]


@pytest.fixture
def beside_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos after the first are encoded while the next is restored."""
    monkeypatch.setattr(work, "_SLOW", -1.0)


class Watched:
    """A function, and the names that it was called with."""

    def __init__(self, function: Callable[..., object], name: Callable[..., str]) -> None:
        self.seen: list[str] = []
        self.threads: set[str] = set()
        self._function, self._name = function, name
        self._changed = threading.Condition()

    def __call__(self, *given: object, **options: object) -> object:
        made = self._function(*given, **options)
        with self._changed:
            self.seen.append(self._name(*given))
            self.threads.add(threading.current_thread().name.partition("_")[0])
            self._changed.notify_all()
        return made

    def wait_for(self, name: str) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: name in self.seen, PATIENCE)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Watched:
    watched = Watched(read_photo, lambda source: Path(source).stem)
    monkeypatch.setattr(beside, "read_photo", watched)
    return watched


def test_the_next_photo_is_read_while_one_is_restored_and_no_other(reads: Watched) -> None:
    at: list[list[str]] = []

    def restore(photo: Photo) -> Done:
        assert photo.path is not None
        following = "bcde "["abcde".index(photo.path.stem)]
        assert following == " " or reads.wait_for(following)
        at.append(sorted(reads.seen))
        return invert(photo)

    records = list(run_batch(plan_batch(["in"], "out"), lambda: restore, Files()))
    assert [r.status for r in records] == ["restored"] * 5
    assert at == [list("ab"), list("abc"), list("abcd"), list("abcde"), list("abcde")]
    assert reads.threads == {"MainThread", "hbr-read"}
    for name in "abcde":
        made, given = (read_photo(f"{folder}/{name}.png") for folder in ("out", "in"))
        np.testing.assert_array_equal(made.pixels, 255 - given.pixels)


def test_a_photo_that_changed_since_it_was_read_is_read_again(reads: Watched) -> None:
    new = np.full((7, 8, 3), 9, np.uint8)

    def restore(photo: Photo) -> Done:
        if photo.path == Path("in/a.png"):
            assert reads.wait_for("b")
            write_photo(Photo.from_array(new), "in/b.png")
        return invert(photo)

    list(run_batch(plan_batch(["in"], "out"), lambda: restore, Files()))
    np.testing.assert_array_equal(read_photo("out/b.png").pixels, 255 - new)
    assert reads.seen.count("b") == 2


@pytest.mark.usefixtures("beside_the_next")
def test_the_last_photo_is_encoded_while_one_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = Watched(work.encode_restored, lambda result, target, *_: target.stem)
    monkeypatch.setattr(work, "encode_restored", encoded)
    there: list[list[str]] = []

    def restore(photo: Photo) -> Done:
        assert photo.path is not None
        name = photo.path.stem
        if name in "cde":
            assert encoded.wait_for("bcd"["cde".index(name)])
        there.append(sorted(path.stem for path in Path("out").glob("*.png")))
        return invert(photo)

    records = []
    for record in run_batch(plan_batch(["in"], "out"), lambda: restore, Files()):
        assert record.output is not None
        assert Path(record.output).is_file()
        records.append(record)
    assert [r.input for r in records] == [f"in/{name}.png" for name in "abcde"]
    assert there == [[], ["a"], ["a"], ["a", "b"], ["a", "b", "c"]]
    assert encoded.threads == {"MainThread", "hbr-encode"}
    assert encoded.seen == list("abcde")


def test_each_photo_has_its_own_messages_in_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of reading it ahead, of restoring it, and of encoding it beside the next one."""
    info = PngInfo()
    info.add_text("Title", "dented")
    for name in "bd":
        Image.fromarray(np.zeros((4, 5, 4), np.uint8)).save(f"in/{name}.png", pnginfo=info)
        data = Path(f"in/{name}.png").read_bytes()
        Path(f"in/{name}.png").write_bytes(data.replace(b"dented", b"denied"))
    Path("in/c.png").write_bytes(Path("in/c.png").read_bytes()[:50])

    def restore(photo: Photo) -> Done:
        logging.getLogger("hbr.test").warning("restoring %s", photo.path)
        return invert(photo)

    def told(slow: float) -> list[object]:
        monkeypatch.setattr(work, "_SLOW", slow)
        events: list[object] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: events.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("hbr").addHandler(handler)
        try:
            plan = plan_batch(["in"], "out", format="jpg", existing="overwrite")
            for r in run_batch(plan, lambda: restore, Files()):
                events.append((r.input, r.status, r.error, r.warnings))
        finally:
            logging.getLogger("hbr").removeHandler(handler)
        return events

    assert told(-1.0) == (expected := told(float("inf")))
    dented = "damaged parts beside its pixels are left out (tEXt)"
    white = "its transparency becomes white in JPEG; PNG, TIFF and WebP keep it"
    lines = [f"in/b.png: {dented}", "restoring in/b.png", f"out/b.jpg: {white}"]
    assert expected[2:6] == [*lines, ("in/b.png", "restored", None, tuple(lines))]
    assert [event[1] for event in expected if event[0] == "in/c.png"] == ["failed"]


@pytest.mark.usefixtures("beside_the_next")
def test_an_interruption_loses_no_photo_that_was_restored() -> None:
    def restore(photo: Photo) -> Done:
        if photo.path == Path("in/c.png"):
            signal.raise_signal(signal.SIGINT)
        return invert(photo)

    records = []
    with StopSignals() as stop, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        for record in run_batch(plan_batch(["in"], "out"), lambda: restore, Files(), stop=stop):
            records.append(record.input)
    assert records == ["in/a.png", "in/b.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]


@pytest.mark.usefixtures("beside_the_next")
def test_who_stops_listening_gets_no_more_photos() -> None:
    batch = run_batch(plan_batch(["in"], "out", existing="resume"), load, Files())
    assert [next(batch).input for _ in range(2)] == ["in/a.png", "in/b.png"]
    batch.close()
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.png", "b.png"]
    assert len(plan_batch(["in"], "out", existing="resume").jobs) == 3


@pytest.mark.usefixtures("beside_the_next")
def test_an_error_of_encoding_is_that_of_its_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = work.encode_restored

    def fails_for_c(result: Done, target: Path, *given: object) -> object:
        if target.stem == "c":
            raise ValueError("no room for c")
        return encode(result, target, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(work, "encode_restored", fails_for_c)
    records = list(run_batch(plan_batch(["in"], "out"), load, Files()))
    assert [r.status for r in records] == ["restored", "restored", "failed", "restored", "restored"]
    assert records[2].error == "in/c.png: no room for c"


def test_a_thread_ends_though_its_next_work_has_not_begun() -> None:
    thread, begun, free = beside.Thread("test"), threading.Event(), threading.Event()
    thread.start(lambda: begun.set() or free.wait(10))
    never = thread.start(lambda: "done by who asks")
    assert begun.wait(10)
    threading.Timer(0.05, free.set).start()
    start = time.monotonic()
    thread.close()
    assert time.monotonic() - start < 5
    assert never() == "done by who asks"
