"""A batch on actors of a real Ray, on two cores of this machine, without a network."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toy_batch
from hbr.clusters import ClusterError
from hbr.config import ConfigError
from hbr.image import Photo, write_photo
from hbr.processes import StopSignals
from hbr.restoration.batch.contents import ByContents
from hbr.restoration.batch.jobs import plan_batch
from hbr.restoration.batch.outputs import Files
from hbr.restoration.batch.ray import RayActors, run_on_cluster
from hbr.restoration.batch.records import FileRecord
from hbr.restoration.batch.running import run_batch
from toy_batch import Done, load

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")

N = 10
ACTORS = RayActors(workers=2)


def load_deadly() -> Callable[[Photo], Done]:
    """A model whose process does not survive one of the photos."""

    def restore(photo: Photo) -> Done:
        if str(photo.path).endswith("03.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        logging.getLogger("hbr.somewhere").warning("%s: has a flaw", photo.path)
        return load()(photo)

    return restore


def load_nothing() -> Callable[[Photo], Done]:
    raise ConfigError("there is no such model")


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    for module in (sys.modules[__name__], toy_batch):
        ray.cloudpickle.register_pickle_by_value(module)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def album(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for n in range(N):
        path = Path(f"in/{'sub/' if n % 3 else ''}{n:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_photo(Photo.from_array(np.full((4, 5, 3), 9 * n, np.uint8)), path)


def run(existing: Any = "refuse", **changes: Any) -> list[FileRecord]:
    given: dict[str, Any] = {"load": load, "actors": ACTORS, **changes}
    plan = plan_batch(["in"], "out", recursive=True, existing=existing)
    return list(run_on_cluster(plan, given.pop("load"), Files(), **given))


def tree(folder: str) -> dict[str, bytes]:
    found = sorted(Path(folder).rglob("*.png"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_the_bytes_are_those_of_one_process(joined: None) -> None:
    Path("in/bad.png").write_bytes(b"nothing")
    records = run()
    plan = plan_batch(["in"], "here", recursive=True)
    local = {r.input: r.status for r in run_batch(plan, load, Files())}
    assert {r.input: r.status for r in records} == local
    assert local["in/bad.png"] == "failed"
    assert tree("out") == tree("here")
    assert len(tree("out")) == N
    again = run(existing="resume")
    assert sorted(r.status for r in again) == ["failed", *["skipped"] * N]


@pytest.mark.slow
def test_a_photo_that_kills_its_actors_fails_alone(
    joined: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="hbr"):
        records = run(ByContents("x"), load=load_deadly)
    failed = [record for record in records if record.status == "failed"]
    assert [record.input for record in failed] == ["in/03.png"]
    assert "in/03.png: 3 workers were lost over it" in str(failed[0].error)
    assert len(tree("out")) == N - 1
    assert sum("has a flaw" in message for message in caplog.messages) == N - 1
    (record,) = [r for r in run(ByContents("x")) if r.status != "skipped"]
    assert (record.input, record.status) == ("in/03.png", "restored")


def test_what_goes_wrong_at_the_start_is_its_own_error(joined: None) -> None:
    with pytest.raises(ConfigError, match="there is no such model"):
        run(load=load_nothing)
    assert not Path("out").exists()
    with pytest.raises(ClusterError, match=r"no machine of the 1 .* needs 3 CPU$"):
        run(actors=RayActors(threads=3))


def test_a_signal_stops_it(joined: None) -> None:
    with StopSignals(raises=False) as stop:
        plan = plan_batch(["in"], "out", recursive=True)
        records = run_on_cluster(plan, load, Files(), ACTORS, stop=stop)
        assert next(records).status == "restored"
        stop.received = signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            list(records)
    assert 1 <= len(tree("out")) < N


def test_strict_stops_at_the_first_failure(joined: None) -> None:
    Path("in/00.png").write_bytes(b"nothing")
    records = run(strict=True, actors=RayActors(workers=1))
    assert [record.status for record in records] == ["failed"]


def test_without_the_extra_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"needs the extra `ray`: pip install 'hbr\[ray\]'"):
        run()
