"""Runs on a real cluster of Ray, two nodes of one core each, whose processes get killed."""

import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from hbr.config import ConfigError
from hbr.curation.config import MetricConfig, QualityConfig
from hbr.curation.engines.local import LocalEngine
from hbr.curation.engines.ray import RayEngine
from hbr.curation.manifest import Manifest
from hbr.curation.pipeline.store import Store
from hbr.curation.record import CurationError
from hbr.curation.runs.run import curate

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

HERE = LocalEngine(workers=0)
STORE = 128 << 20  # bytes of a node's store of objects
PATIENCE = 180  # seconds for a run that takes ten on an idle machine


@pytest.fixture(scope="module")
def cluster():
    """The second node says that it has a GPU."""
    from ray.cluster_utils import Cluster

    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # paths of sockets are short
    patience = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "object_store_memory": STORE, "temp_dir": folder}
    head["_system_config"] = patience
    # the address of the newest cluster goes into a folder that Ray takes to be there
    (Path(folder) / "ray").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        nodes = Cluster(initialize_head=True, head_node_args=head)
        nodes.add_node(num_cpus=1, num_gpus=1, object_store_memory=STORE)
        yield nodes
        nodes.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def joined(cluster):
    """This process is one of the cluster's drivers."""
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield RayEngine()
    ray.shutdown()


@pytest.fixture(scope="module")
def recipe(coco, shared, tmp_path_factory):
    """Files for the real command: a recipe, and annotations of 48 photos."""
    folder = tmp_path_factory.mktemp("recipe")
    images = coco["images"][:48]
    ids = {image["id"] for image in images}
    labels = [a for a in coco["annotations"] if a["image_id"] in ids]
    told = {**coco, "images": images, "annotations": labels}
    (folder / "some.json").write_text(json.dumps(told))
    photos = (shared / "photos/coco-cc/images").resolve()
    (folder / "some.yaml").write_text(
        "name: some\nchunk: 1\nsize: {longer: 128}\n"
        "quality: {top: 0.8, metrics: [{name: detail, threshold: 1.6}, {name: noise}]}\n"
        "output: {kinds: [folder, webdataset], format: jpeg}\n"
        f"sources: [{{kind: coco, name: coco, annotations: {folder / 'some.json'}, "
        f"images: {photos}}}]\n"
    )
    return folder / "some.yaml"


@pytest.fixture(scope="module")
def expected(call_hbr, recipe, tmp_path_factory, digests):
    """What one process on this machine makes of the recipe."""
    out = tmp_path_factory.mktemp("local")
    done = call_hbr("curate", "run", recipe, "-o", out, "--workers", "0")
    assert done.returncode == 0, done.stderr
    return digests(out)


def start(hbr_command, recipe: Path, out: Path, *options: str, **env: str) -> subprocess.Popen:
    command = [*hbr_command, "curate", "run", str(recipe), "-o", str(out), "--engine", "ray"]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
        env={**os.environ, **env},
    )


def parts(out: Path) -> dict[str, tuple[int, int]]:
    """What is recorded as done: name → inode and time of the file."""
    found = out.glob("work/*/parts/[!.]*.parquet")
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def until_parts(out: Path, count: int, process: subprocess.Popen) -> dict[str, tuple[int, int]]:
    until = time.monotonic() + PATIENCE
    while len(done := parts(out)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    return done


def workers() -> list[psutil.Process]:
    """The processes of the actors that do chunks."""
    found = psutil.process_iter(["cmdline"])
    return [p for p in found if "ray::MapWorker" in " ".join(p.info["cmdline"] or ())]


def test_the_bytes_are_those_of_one_process(
    joined, photos, settings, tmp_path, listed, digests
) -> None:
    first = curate(settings, tmp_path / "one", engine=HERE, sources=[listed("coco", photos)])
    shuffled = random.Random(2).sample(photos, len(photos))
    other = dataclasses.replace(settings, chunk=7)
    again = curate(other, tmp_path / "ray", engine=joined, sources=[listed("coco", shuffled)])
    assert digests(tmp_path / "ray") == digests(tmp_path / "one")
    assert again.as_json() == first.as_json()
    assert again.costs["read"][0] == 48


def test_a_killed_worker_changes_nothing(
    cluster, hbr_command, recipe, expected, tmp_path, digests
) -> None:
    earlier = workers()  # those of the runs before may still be on their way out
    process = start(hbr_command, recipe, tmp_path, "--ray-address", cluster.address)
    until_parts(tmp_path, 3, process)
    crew = [worker for worker in workers() if worker not in earlier]
    crew[0].kill()
    recorded = parts(tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.splitlines() == [str(tmp_path / "manifest.parquet")]
    assert 3 <= len(recorded) < 48
    now = parts(tmp_path)
    assert {name: now[name] for name in recorded} == recorded  # nothing done twice
    assert len(now) == 48
    assert digests(tmp_path) == expected


@pytest.mark.slow
def test_a_killed_driver_changes_nothing(
    cluster, hbr_command, recipe, expected, tmp_path, digests
) -> None:
    process = start(hbr_command, recipe, tmp_path, "--ray-address", cluster.address)
    recorded = until_parts(tmp_path, 3, process)
    process.kill()
    process.communicate()
    again = start(hbr_command, recipe, tmp_path, "--ray-address", cluster.address)
    _, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert 3 <= len(recorded) < 48
    now = parts(tmp_path)
    assert {name: now[name] for name in recorded} == recorded
    assert digests(tmp_path) == expected


@pytest.mark.slow
def test_a_lost_machine_changes_nothing(
    cluster, hbr_command, recipe, expected, tmp_path, digests
) -> None:
    third = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    process = start(hbr_command, recipe, tmp_path, "--ray-address", cluster.address)
    until_parts(tmp_path, 3, process)
    cluster.remove_node(third, allow_graceful=False)
    recorded = parts(tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.splitlines() == [str(tmp_path / "manifest.parquet")]  # Ray's words are on stderr
    assert 3 <= len(recorded) < 48
    now = parts(tmp_path)
    assert {name: now[name] for name in recorded} == recorded
    assert digests(tmp_path) == expected


@pytest.mark.slow
def test_too_many_errors_stop_it_with_that_sentence(
    joined, photos, settings, tmp_path, listed
) -> None:
    gone = dataclasses.replace(photos[0], key="gone.jpg", ref=None, error="not there")
    few = dataclasses.replace(settings, errors=0.0, chunk=1)
    source = listed("coco", [gone, *photos[1:30]])
    with pytest.raises(CurationError, match=r"1 of \d+ images cannot be used.* more than the 0.0%"):
        curate(few, tmp_path, engine=joined, sources=[source])
    assert 1 <= len(parts(tmp_path)) < 30
    allowed = dataclasses.replace(few, errors=0.1)
    summary = curate(allowed, tmp_path, engine=joined, sources=[source])
    assert (summary.images, summary.errors) == (30, 1)


@pytest.mark.slow
def test_chunks_are_taken_no_faster_than_they_are_done(
    joined, photos, settings, tmp_path, plan_of
) -> None:
    store = Store(tmp_path, settings)
    store.create()
    plan = plan_of(dataclasses.replace(photos[0], key=str(i), ref=None) for i in range(40))
    run = joined.run(settings, tmp_path, plan)
    next(run)
    run.close()  # no worker begins anything from now on
    begun = len(store.parts()) + len(list((store.folder / "attempts").iterdir()))
    assert 1 <= begun < 40
    time.sleep(1)
    assert len(store.parts()) + len(list((store.folder / "attempts").iterdir())) == begun
    assert sum(1 for _ in joined.run(settings, tmp_path, plan)) == 40
    assert len(store.parts()) == 40
    assert not list((store.folder / "attempts").iterdir())


def visible():
    """A tagger that tells which GPUs its process sees."""
    return lambda crops: [[os.environ.get("CUDA_VISIBLE_DEVICES", "none")] for _ in crops]


@pytest.mark.slow
def test_actors_with_gpus_go_where_the_gpus_are(joined, photos, settings, tmp_path, listed) -> None:
    tagged = dataclasses.replace(settings, tagger=f"{__name__}:visible")
    engine = dataclasses.replace(joined, gpus=0.5, memory=100 << 20)
    curate(tagged, tmp_path, engine=engine, sources=[listed("coco", photos[:12])])
    assert {record.tags for record in Manifest(tmp_path).kept()} == {("0",)}


def deadly():
    """A tagger whose process does not live to tell."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_a_chunk_that_kills_its_workers_stops_the_run(
    joined, photos, settings, tmp_path, listed
) -> None:
    tagged = dataclasses.replace(settings, tagger=f"{__name__}:deadly")
    with pytest.raises(CurationError, match="3 workers were lost over the images from coco/"):
        curate(tagged, tmp_path, engine=joined, sources=[listed("coco", photos[:3])])


def test_what_goes_wrong_in_a_worker_is_its_own_error(
    joined, photos, settings, tmp_path, listed
) -> None:
    tagged = dataclasses.replace(settings, tagger="no.such:tagger")
    with pytest.raises(ConfigError, match=r"tagger 'no.such:tagger' cannot be loaded"):
        curate(tagged, tmp_path, engine=joined, sources=[listed("coco", photos[:3])])


@pytest.mark.slow
def test_a_folder_that_is_not_shared_is_a_clear_line(
    joined, photos, settings, tmp_path, plan_of
) -> None:
    # nothing is made there
    with pytest.raises(CurationError, match=r"does not see the run in .* must be shared"):
        list(joined.run(settings, tmp_path, plan_of(photos[:1])))


def test_no_room_for_a_worker_is_a_clear_line(joined, photos, settings, tmp_path, plan_of) -> None:
    plan = plan_of(photos[:1])
    with pytest.raises(CurationError, match=r"no machine of the 2 .* needs 1 CPU, 2 GPU$"):
        list(dataclasses.replace(joined, gpus=2).run(settings, tmp_path, plan))
    quality = QualityConfig(metrics=(MetricConfig("niqe"),), device="cuda:1")
    numbered = dataclasses.replace(settings, quality=quality)
    with pytest.raises(CurationError, match="the device cuda:1: Ray gives each worker its own"):
        list(joined.run(numbered, tmp_path, plan))


@pytest.mark.slow
def test_ctrl_c_ends_what_was_started_for_the_run(hbr_command, recipe, tmp_path) -> None:
    """Ray on this machine alone, without a cluster."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    process = start(hbr_command, recipe, tmp_path, "--workers", "1", RAY_TMPDIR=folder)
    until_parts(tmp_path, 2, process)
    started = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert out == ""
    assert "stopped; the same command resumes: hbr curate run" in err
    assert "Traceback" not in err
    assert len(started) >= 3
    _, left = psutil.wait_procs(started, timeout=PATIENCE)
    assert not left
    assert 2 <= len(parts(tmp_path)) < 48
    shutil.rmtree(folder, ignore_errors=True)


def test_without_the_extra_it_is_one_line(photos, settings, tmp_path, listed, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CurationError, match=r"needs the extra `ray`: pip install 'hbr\[ray\]'"):
        curate(settings, tmp_path, engine=RayEngine(), sources=[listed("coco", photos[:1])])


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:1", "refused"), ("somewhere", "neither auto nor of the form HOST:PORT")],
)
def test_where_no_cluster_answers_it_is_one_line(run_hbr, recipe, tmp_path, address, why) -> None:
    options = ("--engine", "ray", "--ray-address", address)
    done = run_hbr("curate", "run", recipe, "-o", tmp_path, *options)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"hbr: no cluster of Ray can be reached at {address} (")
    assert why in line


@pytest.mark.parametrize(
    "values", [{"address": "ray://head:10001"}, {"workers": 0}, {"gpus": 1.5}, {"memory": 0}]
)
def test_what_no_cluster_can_be(values) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        RayEngine(**values)
