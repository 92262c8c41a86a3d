"""`hbr study` as raters meet it: a server that is killed, the page in a real browser."""

import contextlib
import http.client
import json
import os
import signal
import sqlite3
import urllib.parse
import urllib.request

import pytest
from study_fixtures import CODE, METHODS, SECRETS, make_folders, post, served

from hbr.evaluation.study.creation import StudyPhotos, create
from hbr.evaluation.study.design import StudyConfig
from hbr.evaluation.study.store import Study


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("photos"), edge=256)


def new(out, folders, **settings):
    references = {"lq": folders["lq"], "hq": folders["hq"]} if settings.pop("both", None) else {}
    photos = StudyPhotos(methods={n: folders[n] for n in METHODS}, **references)
    return create(out, photos, StudyConfig(**settings))


def test_answers_survive_a_kill_and_the_rater_goes_on(tmp_path, folders, hbr_command):
    new(tmp_path / "s", folders)
    given = {}
    with served(hbr_command, tmp_path / "s") as (process, url):
        place = post(url, "api/join", code=CODE)
        for value in (1, 4, 2):
            trial = place["trial"]
            body = {"code": CODE, "trial": trial["id"], "position": trial["position"]}
            place = post(url, "api/answer", **body, value=value, ms=5)
            given[trial["position"]] = value
            again = post(url, "api/answer", **body, value=value, ms=5)
            assert again == place
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with served(hbr_command, tmp_path / "s") as (_, url):
        back = post(url, "api/join", code=CODE)
        assert back == place
        assert (back["answered"], back["trial"]["position"]) == (3, 3)
    assert {a.position: a.value for a in Study.open(tmp_path / "s").answers()} == given


def refused_body(url, name, value, body):
    """The answer to a request whose header announces a body, of which so much is sent."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=30)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/api/join")
        connection.putheader(name, value)
        connection.endheaders(body)
        reply = connection.getresponse()
        return reply.status, json.load(reply)["detail"]


def test_nothing_that_is_served_gives_a_method_away(tmp_path, folders, hbr_command):
    new(tmp_path / "s", folders, kind="choice", both=True)
    hidden = (*SECRETS, "stem0", "stem1", "stem2", "stem3", str(tmp_path))
    with served(hbr_command, tmp_path / "s") as (_, url):
        place = post(url, "api/join", code=CODE)
        told = [repr(place)]
        trial = place["trial"]
        shown = [*trial["images"], *trial["references"].values(), *trial["ahead"]]
        for path in ("", "study.js", "study.css", *(f"images/{image}.png" for image in shown)):
            with urllib.request.urlopen(url + path, timeout=30) as reply:
                told += [str(reply.headers), reply.read().decode("latin-1")]
        assert not [word for word in hidden for text in told if word in text]
        status, refused = post(url, "api/answer", code=CODE, trial="x", position=0, value=0)
        assert (status, refused["detail"]) == (409, "this rater has no such trial")
        assert post(url, "api/join", code="x" * 999)[0] == 422
        said = "the upload has 200000 bytes; at most 65536 are accepted"
        assert refused_body(url, "Content-Length", "200000", b"") == (413, said)
        # without a length: all of it is read before it is too much
        status, said = refused_body(
            url, "Transfer-Encoding", "chunked", b"20001\r\n" + bytes(0x20001)
        )
        assert (status, said) == (413, "the upload has more than 131072 bytes")
        # as through a proxy that changes the name of the host
        proxied = urllib.request.Request(url, headers={"Origin": "https://study.example"})
        with urllib.request.urlopen(proxied, timeout=30) as reply:
            assert (reply.status, reply.headers["X-Content-Type-Options"]) == (200, "nosniff")
        for path in ("images/..%2Fstudy.sqlite.png", "images/nothing.png", "study.sqlite"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(url + path, timeout=30)


def test_the_command_line(tmp_path, folders, run_hbr, call_hbr, hbr_command):
    study, methods = tmp_path / "s", [f"--method={n}={folders[n]}" for n in METHODS]
    done = call_hbr("study", "new", study, *methods, "--kind", "choice", "--per-rater", 2)
    assert (done.returncode, done.stdout.strip()) == (0, str(study)), done.stderr
    done = call_hbr("study", "report", study, "-o", tmp_path / "r")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answers yet" in done.stderr
    with served(hbr_command, study) as (process, url):
        taken = run_hbr("study", "serve", study, "--port", url.rsplit(":", 1)[1].rstrip("/"))
        assert taken.returncode == 1
        assert "choose another --port" in taken.stderr
        trial = post(url, "api/join", code=CODE)["trial"]
        post(url, "api/answer", code=CODE, trial=trial["id"], position=0, value=1)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
    done = call_hbr("study", "report", study, "-o", tmp_path / "r", "--bootstrap", 50)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "r" / "report.html") in done.stdout.splitlines()
    for wrong in ("--method=nodir", "--method=a=x --method=a=y"):
        done = call_hbr("study", "new", tmp_path / "t", *wrong.split())
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "t").exists()


def open_page(browser, url, **options):
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(str(error)))
    page.goto(url)
    return page


def answered(page, count):
    page.wait_for_selector(f"#count:text-is('{count}')", state="attached")


READY = "#answers button:enabled"


@pytest.mark.slow
def test_scores_by_keys_through_a_kill(tmp_path, folders, hbr_command, browser):
    new(tmp_path / "s", folders, both=True, per_rater=4)
    with served(hbr_command, tmp_path / "s") as (process, url):
        page = open_page(browser, url, viewport={"width": 1280, "height": 800})
        page.click("#begin")
        page.wait_for_selector(READY)
        assert page.locator(".pane img").count() == 3
        assert page.evaluate("document.documentElement.scrollHeight <= innerHeight")
        page.keyboard.press("4")
        answered(page, "1 of 4")
        page.wait_for_selector(READY)
        # a closer look goes to the same spot on every photo
        page.locator(".pane img").first.click(position={"x": 5, "y": 5})
        moved = page.locator(".pane img").evaluate_all("all => all.map(i => i.style.transform)")
        assert moved == ["scale(2.5)"] * 3
        page.keyboard.press("Backspace")
        page.wait_for_selector("#answers button[data-value='4'][aria-pressed='true']")
        page.wait_for_selector(READY)
        page.keyboard.press("5")
        page.wait_for_selector("#answers:not(:has([aria-pressed='true']))")
        page.wait_for_selector(READY)
        process.kill()
        process.wait()
        page.keyboard.press("0")
        page.wait_for_selector("#message:has-text('retrying')")
        port = int(url.rsplit(":", 1)[1].rstrip("/"))
    with served(hbr_command, tmp_path / "s", port):
        answered(page, "2 of 4")
        page.reload()
        page.wait_for_selector(READY)
        assert page.inner_text("#count") == "2 of 4"
        for number in (3, 4):
            page.click("#answers button[data-value='2']")
            answered(page, f"{number} of 4")
            if number == 3:
                page.wait_for_selector(READY)
        page.wait_for_selector("#end h1")
        assert page.wrong == []
    assert [a.value for a in Study.open(tmp_path / "s").answers()] == [5, 0, 2, 2]


def test_choices_by_touch_on_a_phone(tmp_path, folders, hbr_command, browser):
    study = new(tmp_path / "s", folders, kind="choice", per_rater=3)
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with served(hbr_command, tmp_path / "s") as (_, url):
        page = open_page(browser, url, **phone)
        page.tap("#begin")
        for number in range(3):
            page.wait_for_selector(READY)
            size = "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
            assert page.evaluate(size) == [390, 844]
            left, right = (box.bounding_box() for box in page.locator(".pane img").all())
            assert left["x"] + left["width"] <= right["x"]
            assert left["width"] > 170
            for box in page.locator("#answers button").all():
                assert box.bounding_box()["height"] >= 44
            page.dispatch_event("#answers button[data-value='1']", "click")
            page.dispatch_event("#answers button[data-value='1']", "click")  # an impatient finger
            answered(page, f"{number + 1} of 3")
        page.wait_for_selector("#end h1")
        code = page.inner_text("#mycode")
        elsewhere = open_page(browser, url)
        elsewhere.fill("#code", code)
        elsewhere.press("#code", "Enter")
        elsewhere.wait_for_selector("#end h1")
        assert page.wrong == elsewhere.wrong == []
    assert [a.value for a in study.answers()] == [1, 1, 1]
    with sqlite3.connect(study.folder / "study.sqlite") as db:
        assert db.execute("SELECT count(*) FROM raters").fetchone() == (1,)
