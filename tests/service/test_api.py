"""The API on a real socket: right bytes, honest refusals, nothing left behind."""

import asyncio
import io
import json
import socket
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image
from service_photo import PHOTO, write_large
from starlette.datastructures import Headers

from hbr.image import read_photo
from hbr.image.recipe_text import recipe_text
from hbr.restoration.batch.outputs import Files, encode_restored
from hbr.restoration.recipe import NamedFile
from hbr.restoration.settings import PeopleChoice
from hbr.service import api
from hbr.service.guard import Guard
from hbr.service.server import offered


def left(running):
    """What lies in the service's folder."""
    return [path.name for path in running.service.queue.folder.iterdir()]


def soon(condition, within=20.0):
    """Wait until a condition holds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_small_photo_is_answered_with_its_bytes(start, nano, tmp_path):
    running = start()
    answer = running.restore(seed=3)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert 'filename="tie-restored.png"' in answer.headers["content-disposition"]
    expected = nano(read_photo(PHOTO), seed=3)
    source, files = NamedFile.of_bytes(PHOTO.read_bytes()), Files(recipe="file")
    assert answer.content == encode_restored(expected, tmp_path / "x.png", source, files)[0]
    recipe = json.loads(recipe_text(read_photo(io.BytesIO(answer.content))))
    assert recipe["source"] == {"sha256": source.sha256}
    provenance = json.loads(answer.headers["x-hbr-provenance"])
    assert (provenance["model"], provenance["seed"]) == ("nano", 3)
    soon(lambda: not left(running))


def test_a_job_from_upload_to_deletion(start):
    running = start()
    queued = running.restore(mode="job", format="jpg", quality=80)
    assert queued.status_code == 202
    place = queued.headers["location"]
    with running.client.stream("GET", f"{place}/events") as stream:
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line]
    assert events[-1]["state"] == "done"
    assert events[-1]["done"] == events[-1]["total"] >= 1
    result = running.client.get(f"{place}/result")
    assert result.headers["content-type"] == "image/jpeg"
    assert events[-1]["file_name"] == "tie-restored.jpg"
    for of in ("before", "after"):
        preview = running.client.get(f"{place}/preview", params={"of": of})
        assert Image.open(io.BytesIO(preview.content)).size == Image.open(PHOTO).size
    id = events[-1]["id"]
    archive = running.client.post("/v1/jobs/archive", json={"jobs": [id, id]})
    with zipfile.ZipFile(io.BytesIO(archive.content)) as opened:
        assert opened.namelist() == ["tie-restored.jpg", "tie-restored-2.jpg"]
        assert opened.read("tie-restored.jpg") == result.content
    assert running.client.delete(place).status_code == 204
    assert running.client.get(place).status_code == 404
    soon(lambda: not left(running))


def held_job(start, nano):
    """A service, a job of it, and the event that lets its model load."""
    may_run = threading.Event()

    def load(*names):
        assert may_run.wait(60)
        return nano

    running = start(offer=(offered(["nano"])[0], load))
    return running, running.service.queue.get(running.restore(mode="job").json()["id"]), may_run


def test_the_last_event_of_a_job_is_its_end(start, nano):
    """Even if the job ends while the event before is being sent."""
    running, job, may_run = held_job(start, nano)

    async def states():
        seen = []
        async for event in api._events(running.service, job):
            seen.append(json.loads(event[6:])["state"])
            if not may_run.is_set():
                may_run.set()
                job.finished.result(60)
        return seen

    assert asyncio.run(states())[1:] == ["done"]


def test_people_of_a_job(start, nano):
    running = start()
    fields = {"people": "only", "box": ["4,4,20,30", "40,10,20,20"], "mode": "job"}
    with PHOTO.open("rb") as photo:
        job = running.client.post("/v1/restore", files={"photo": photo}, data=fields).json()
    with running.client.stream("GET", f"/v1/jobs/{job['id']}/events") as stream:
        last = [json.loads(line[6:]) for line in stream.iter_lines() if line][-1]
    assert [person["number"] for person in last["people"]] == [1, 2]
    assert last["people"] == last["provenance"]["people"]["found"]
    made = read_photo(io.BytesIO(running.client.get(last["result"]).content)).pixels
    boxes = ((4.0, 4.0, 20.0, 30.0), (40.0, 10.0, 20.0, 20.0))
    expected = nano(read_photo(PHOTO), people="only", choice=PeopleChoice(boxes=boxes))
    assert (made == expected.pixels).all()


def test_chosen_people_have_their_own_fidelity(start, nano):
    running = start()
    fields = {"people": "auto", "box": ["4,4,20,30", "40,10,20,20"], "mode": "job"}
    fields |= {"person": "2", "person_fidelity": "2=1"}
    with PHOTO.open("rb") as photo:
        job = running.client.post("/v1/restore", files={"photo": photo}, data=fields).json()
    ended = running.ended(f"/v1/jobs/{job['id']}")
    assert [person["done"] for person in ended["people"]] == ["background", "tiles"]
    assert [person["fidelity"] for person in ended["people"]] == [None, 1.0]
    assert tuple(ended["photo_size"]) == Image.open(PHOTO).size
    made = read_photo(io.BytesIO(running.client.get(ended["result"]).content)).pixels
    boxes = ((4.0, 4.0, 20.0, 30.0), (40.0, 10.0, 20.0, 20.0))
    choice = PeopleChoice(boxes=boxes, persons=(2,), fidelity=((2, 1.0),))
    assert (made == nano(read_photo(PHOTO), people="auto", choice=choice).pixels).all()


def test_a_model_with_one_end_takes_no_fidelity(start):
    running = start()
    (view,) = running.service.models
    running.service.models = (view.model_copy(update={"two_ends": False}),)
    for fields in ({"fidelity": 1}, {"people": "auto", "person_fidelity": "1=1"}):
        answer = running.restore(**fields)
        assert answer.status_code == 422
        assert answer.json()["detail"].endswith("it must be left out: the model has one end")


def test_health_names_the_person_detector(start, monkeypatch):
    running = start()
    assert running.client.get("/healthz").json()["person_detector"] is None
    monkeypatch.setattr(api, "auto_detector", lambda: "nanodet")
    assert running.client.get("/healthz").json()["person_detector"] == "nanodet"


@pytest.mark.parametrize(
    ("name", "data", "fields", "status", "message"),
    [
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", {}, 422, "a:"),
        ("a.jpg", b"", {}, 422, "a:"),
        ("a.jpg", b"GIF89a" + bytes(100), {}, 422, "a:"),
        ("../../etc/passwd", b"<html>", {}, 422, "passwd:"),
        ("C:\\x\\y.jpg", b"%PDF-1.4", {}, 422, "y:"),
        (None, None, {"fidelity": "2"}, 422, "fidelity: "),
        (None, None, {"fidelity": "nan"}, 422, "fidelity: "),
        (None, None, {"scale": "20"}, 422, "scale is 20.0; it must be 0.25 to 8"),
        (None, None, {"format": "svg"}, 422, "format is 'svg'"),
        (None, None, {"model": "../nano"}, 422, "model is '../nano'; it must be one of nano"),
        (None, None, {"mode": "later"}, 422, "mode: "),
        (None, None, {"people": "all"}, 422, "people: "),
        (None, None, {"box": "1,2,3,4"}, 422, "people is 'off'; it must be auto or only"),
        (None, None, {"people": "only", "box": "1,2"}, 422, "box is '1,2'; it must be x,y,width"),
        (None, None, {"people": "only", "box": "9999,0,5,5"}, 422, "the box 9999,0,5,5 is outside"),
        (None, None, {"people": "only"}, 503, "there is no person detector"),
        (None, None, {"person": "1"}, 422, "people is 'off'; it must be auto or only"),
        (None, None, {"people": "auto", "person": "one"}, 422, "person is 'one'; it must be"),
        (None, None, {"people": "auto", "person": "0"}, 422, "person is (0,); it must be"),
        (None, None, {"people": "only", "box": "1,1,9,9", "person": "2"}, 422, "person 2 is not"),
        (None, None, {"people": "auto", "person_fidelity": "1:1"}, 422, "person_fidelity is"),
        (None, None, {"people": "auto", "person_fidelity": "1=nan"}, 422, "person_fidelity is"),
        (None, None, {"seed": "-1"}, 422, "seed: "),
    ],
)
def test_what_cannot_be_is_one_line(start, name, data, fields, status, message):
    running = start()
    file = (name, data) if name else ("tie.png", PHOTO.read_bytes())
    answer = running.client.post("/v1/restore", files={"photo": file}, data=fields)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(message)
    assert "\n" not in answer.json()["detail"]
    assert str(running.service.queue.folder) not in answer.text
    soon(lambda: not left(running))


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/restore", b"{}", 422),
        ("POST", "/v1/jobs/archive", b"[1,", 422),
        ("POST", "/v1/jobs/archive", b'{"jobs": []}', 422),
        ("POST", "/v1/jobs/archive", b'{"jobs": ["no"]}', 404),
        ("GET", "/v1/jobs/no", None, 404),
        ("GET", "/v1/jobs/..%2f..%2fetc%2fpasswd", None, 404),
        ("DELETE", "/v1/jobs/no", None, 404),
        ("GET", "/nothing", None, 404),
    ],
)
def test_requests_of_another_shape(start, method, path, body, status):
    running = start()
    answer = running.client.request(
        method, path, content=body, headers={"Content-Type": "application/json"} if body else {}
    )
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


def test_a_photo_that_is_too_large(start, tmp_path):
    running = start(max_bytes=200_000, max_pixels=10_000)
    answer = running.client.post("/v1/restore", files={"photo": ("a.jpg", bytes(300_000))})
    assert (answer.status_code, "at most 200000" in answer.text) == (413, True)

    def chunks():  # without a length
        yield b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
        yield from (bytes(65_536) for _ in range(100))

    form = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = running.client.post("/v1/restore", content=chunks(), headers=form)
    assert (answer.status_code, "more than" in answer.text) == (413, True)
    answer = running.restore()  # few bytes, many pixels
    assert (answer.status_code, "pixels" in answer.text) == (422, True)
    soon(lambda: not left(running))


def test_a_full_queue_is_said_and_empties(start, tmp_path):
    running = start(waiting=1)
    photo = write_large(tmp_path)
    jobs = [running.restore(photo, mode="job")]
    soon(lambda: running.client.get(jobs[0].headers["location"]).json()["state"] == "running")
    jobs.append(running.restore(photo, mode="job"))
    refused = running.restore(mode="job")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "wait already" in refused.json()["detail"]
    for job in jobs:
        running.client.delete(job.headers["location"])
    soon(lambda: not left(running))
    assert running.restore().status_code == 200


def test_a_job_that_is_cancelled_stops_within_a_tile(start, tmp_path):
    running = start()
    place = running.restore(write_large(tmp_path), mode="job").headers["location"]
    soon(lambda: running.client.get(place).json()["done"] >= 1)
    job = running.service.queue.get(place.rpartition("/")[2])
    assert running.client.get(f"{place}/result").status_code == 409
    assert running.client.delete(place).status_code == 204
    job.finished.result(timeout=20)
    assert job.state == "cancelled"
    assert job.done < job.total
    soon(lambda: not left(running))


def test_a_client_that_hangs_up_frees_its_place(start, tmp_path):
    running = start()
    photo = write_large(tmp_path).read_bytes()
    body = (
        b"--x\r\nContent-Disposition: form-data; name=mode\r\n\r\nsync\r\n--x\r\n"
        b'Content-Disposition: form-data; name="photo"; filename="a.png"\r\n\r\n'
        + photo
        + b"\r\n--x--\r\n"
    )
    head = (
        f"POST /v1/restore HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(head.encode() + body)
        soon(lambda: running.service.queue.held == 1)
        (job,) = running.service.queue._jobs.values()
    job.finished.result(timeout=20)
    assert job.state == "cancelled"
    soon(lambda: running.service.queue.held == 0 and not left(running))
    assert running.restore().status_code == 200


def test_a_slow_upload_holds_nobody_and_ends(start):
    running = start(upload_seconds=2.0)
    head = (
        f"POST /v1/restore HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n"
        "Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n--x\r\n"
    )
    with socket.create_connection(("127.0.0.1", running.port)) as client:
        client.sendall(head.encode())
        assert running.restore().status_code == 200  # meanwhile
        client.settimeout(20)
        answer = client.recv(65536)
    assert b" 408 " in answer.splitlines()[0]
    assert not left(running)


def test_a_photo_that_takes_too_long(start, tmp_path):
    running = start(seconds=0.01)
    answer = running.restore(write_large(tmp_path), mode="sync")
    assert (answer.status_code, answer.json()["detail"]) == (503, "it takes longer than 0.01 s")


def test_results_expire(start):
    running = start(keep=0.2)
    place = running.restore(mode="job").headers["location"]
    assert running.ended(place)["state"] == "done"
    time.sleep(0.3)
    running.service.queue.purge()
    assert running.client.get(place).status_code == 404
    assert not left(running)


def test_results_expire_while_others_wait(start, nano):
    """Also if a photo is always there to be restored, and none arrives."""
    may_run = threading.Semaphore(0)

    def load(model, fidelity, decoder):
        assert may_run.acquire(timeout=60)
        return nano

    running = start(keep=0.2, offer=(offered(["nano"])[0], load))
    first, *_ = (running.restore(mode="job", fidelity=f / 4).headers["location"] for f in range(4))
    may_run.release()
    assert running.ended(first)["state"] == "done"
    time.sleep(0.3)
    may_run.release(2)
    soon(lambda: running.client.get(first).status_code == 404)
    may_run.release()


def test_an_archive_that_cannot_be_written_leaves_nothing(start):
    running = start()
    id = running.restore(mode="job").json()["id"]
    assert running.ended(f"/v1/jobs/{id}")["state"] == "done"
    job = running.service.queue.get(id)
    job.result.unlink()
    with pytest.raises(FileNotFoundError):
        api._zip([job], running.service.queue.folder)
    assert left(running) == [id]


def test_who_follows_a_job_for_long_is_called_back_once(start, nano, monkeypatch):
    running, job, may_run = held_job(start, nano)
    calls = []
    add = job.finished.add_done_callback
    monkeypatch.setattr(job.finished, "add_done_callback", lambda f: (calls.append(f), add(f)))

    async def follow():
        events = api._events(running.service, job)
        await anext(events)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 1)

    soon(lambda: job.state == "running")
    asyncio.run(follow())
    assert len(calls) == 1
    may_run.set()


def test_only_who_may_comes_in(start):
    running = start(token="sesame")
    get = running.client.get
    assert get("/healthz").status_code == get("/").status_code == 200
    for given in (None, "", "Bearer no", "Bearer sesam", "Bearer sesame2"):
        headers = {} if given is None else {"Authorization": given}
        refused = get("/v1/models", headers=headers)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert get("/metrics", headers=headers).status_code == 401
    allowed = get("/v1/models", headers={"Authorization": "Bearer sesame"})
    view = {"name": "nano", "two_ends": True, "upscale": 1, "decoders": []}
    assert allowed.json() == [view]
    assert get("/", headers={"Host": "evil.example"}).status_code == 421
    other = {"Authorization": "Bearer sesame", "Origin": "http://evil.example"}
    assert get("/v1/models", headers=other).status_code == 403
    own = {**other, "Origin": f"http://127.0.0.1:{running.port}"}
    assert get("/v1/models", headers=own).status_code == 200
    # what is no address at all
    assert get("/", headers={"Host": "["}).status_code == 421
    assert get("/v1/models", headers={**own, "Origin": "http://["}).status_code == 403


def test_a_service_that_is_open_to_others_refuses_what_is_no_address():
    guard = Guard(None, max_bytes=1, seconds=1, answered=lambda route, status: None)
    for code, given in (
        (421, {"host": "["}),
        (403, {"host": "a.example", "origin": "http://["}),
        (403, {"host": "a.example", "origin": "http://b.example"}),
        (403, {"origin": "null"}),
    ):
        refusal = guard._refusal({"path": "/"}, Headers(given))
        assert refusal is not None
        assert refusal[0] == code
    for given in ({}, {"host": "a.example", "origin": "http://a.example"}):
        assert guard._refusal({"path": "/"}, Headers(given)) is None


def test_many_clients_at_once(start):
    """Every answer is right or an honest refusal, and nothing is left."""
    running = start(waiting=4)
    right = running.restore().content

    def client(_: int) -> int:
        with httpx.Client(base_url=running.client.base_url, timeout=120) as own:
            files = {"photo": ("tie.png", PHOTO.read_bytes())}
            answer = own.post("/v1/restore", files=files)
        assert answer.status_code in (200, 503)
        assert answer.status_code == 503 or answer.content == right
        return answer.status_code

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(client, range(24)))
    assert statuses.count(200) >= 5
    soon(lambda: not left(running))
    assert running.service.queue.held == 0
    counted = running.client.get("/metrics").text
    assert f'hbr_jobs_total{{state="done"}} {statuses.count(200) + 1:.1f}' in counted
    assert "hbr_waiting 0.0" in counted


def test_the_api_describes_itself(start):
    running = start()
    described = running.client.get("/openapi.json").json()
    assert {"/v1/restore", "/v1/jobs/{id}/events", "/v1/models"} <= described["paths"].keys()
    form = described["components"]["schemas"]["RestoreRequest"]["properties"]
    assert {"photo", "fidelity", "scale", "mode"} <= form.keys()
