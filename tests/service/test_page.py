"""The page in a real browser: photos in, the right bytes out, and nothing from elsewhere."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from service_photo import PHOTO, write_large

from hbr.image import read_photo
from hbr.people.types import People
from hbr.restoration.people.locating import PeopleLocator
from hbr.restoration.settings import PeopleChoice
from hbr.service import api


@pytest.fixture
def opened(start, browser):
    """A page of a running service, its requests and its errors."""
    running = start()
    page = browser.new_page(viewport={"width": 1200, "height": 900}, accept_downloads=True)
    page.set_default_timeout(60_000)
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(str(running.client.base_url))
    page.wait_for_selector("#model option", state="attached")
    yield running, page
    assert errors == []
    own = (str(running.client.base_url), "blob:", "data:")
    assert [url for url in requests if not url.startswith(own)] == []
    page.close()


def add(page, *photos: Path) -> None:
    page.set_input_files("#files", [str(photo) for photo in photos])


def test_a_photo_is_restored_and_downloaded(opened, tmp_path):
    running, page = opened
    add(page, PHOTO)
    page.wait_for_selector("#download:not([disabled])")
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "tie-restored.png"
    assert Path(download.value.path()).read_bytes() == running.restore(fidelity=0.25).content
    with page.expect_download() as download:
        page.click("#all")
    assert download.value.suggested_filename == "restored.zip"
    # another version of the same photo
    page.locator("#fidelity").fill("1")
    page.click("#again")
    page.wait_for_selector("#versions button:nth-child(2)")
    page.wait_for_selector("#download:not([disabled])")
    assert page.locator("#versions button").all_inner_texts() == ["nano 0.25", "nano 1.00"]
    page.click("#beside")
    assert page.locator("#columns figcaption").all_inner_texts() == [
        "before",
        "nano 0.25",
        "nano 1.00",
    ]
    page.get_by_label("Remove tie.png").click()
    page.wait_for_selector("#work", state="hidden")


def test_the_slider_moves_by_keyboard_and_pointer(opened):
    _, page = opened
    add(page, PHOTO)
    page.wait_for_selector("#pair", state="visible")

    def cut() -> str:
        return page.evaluate("document.getElementById('pair').style.getPropertyValue('--cut')")

    assert cut() == "50%"
    page.focus("#slider")
    page.keyboard.press("ArrowRight")
    assert cut() == "49%"
    page.keyboard.press("End")
    assert cut() == "0%"
    box = page.locator("#pair").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 5)
    page.mouse.down()
    page.mouse.up()
    assert cut() in ("75%", "74%", "76%")
    page.click("#zoom")
    assert page.locator("#after").bounding_box()["width"] == Image.open(PHOTO).width


def test_people_are_chosen_each_with_their_own_fidelity(start, browser, nano, monkeypatch):
    def detect(images):
        boxes = np.array([[40, 10, 90, 110], [4, 4, 34, 90]], np.float32)
        return [People(boxes, np.array([0.9, 0.8], np.float32)) for _ in images]

    monkeypatch.setattr(api, "auto_detector", lambda: "nanodet")
    monkeypatch.setattr(nano, "locator", PeopleLocator(detect))
    running = start()
    page = browser.new_page(viewport={"width": 1200, "height": 1000}, accept_downloads=True)
    page.set_default_timeout(60_000)
    page.goto(str(running.client.base_url))
    page.wait_for_selector("#people:not([disabled])")
    page.get_by_label("People", exact=True).select_option("only")
    add(page, PHOTO)
    page.wait_for_selector("text=tie.png is restored. 2 people were found.")
    assert page.locator("#persons .did").all_inner_texts() == 2 * [
        "restored separately, fidelity 0.25"
    ]
    # one of them, at an end of the model, by keyboard
    page.get_by_label("Person 1", exact=True).focus()
    assert page.locator("#outline").is_visible()
    page.keyboard.press("Space")
    assert page.get_by_label("Fidelity of person 1").is_disabled()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    assert page.locator("#persons output").all_inner_texts() == ["fidelity 0.25", "fidelity 1.00"]
    page.click("#again")
    page.wait_for_selector("#download:not([disabled])")
    assert page.locator("#persons .did").all_inner_texts() == [
        "left unchanged",
        "restored separately, fidelity 1.00",
    ]
    with page.expect_download() as download:
        page.click("#download")
    boxes = ((4.0, 4.0, 30.0, 86.0), (40.0, 10.0, 50.0, 100.0))
    choice = PeopleChoice(boxes=boxes, persons=(2,), fidelity=((2, 1.0),))
    expected = nano(read_photo(PHOTO), people="only", choice=choice)
    assert (read_photo(Path(download.value.path())).pixels == expected.pixels).all()
    # nobody
    page.get_by_label("Person 2", exact=True).uncheck()
    page.click("#again")
    assert page.locator("#message").inner_text().startswith("Choose at least one person")
    assert page.locator("#versions button").count() == 2
    page.close()


def test_without_a_detector_the_page_says_what_to_do(opened):
    _, page = opened
    assert page.locator("#people").is_disabled()
    assert "hbr fetch people" in page.locator("#people-help").inner_text()


def test_a_file_that_is_no_photo_says_so_and_others_go_on(opened, tmp_path):
    _, page = opened
    text = tmp_path / "note.jpg"
    text.write_text("not a photo")
    add(page, text, PHOTO)
    page.wait_for_selector("#photos .state.bad")
    assert "not a photo" in page.locator("#photos .state.bad").inner_text()
    page.wait_for_selector("text=1 of 2 done")


def test_a_running_job_is_cancelled_in_one_tab_while_another_works(opened, browser, tmp_path):
    running, page = opened
    large = write_large(tmp_path)
    add(page, large)
    page.wait_for_selector("#photos progress[value]")
    second = browser.new_page()
    second.goto(str(running.client.base_url))
    add(second, PHOTO)
    second.wait_for_selector("text=next")  # behind the first
    page.get_by_label("Cancel large.png").click()
    page.wait_for_selector("text=cancelled")
    second.wait_for_selector("#download:not([disabled])", timeout=60_000)
    second.close()


def test_an_upload_that_is_too_large_says_so(start, browser):
    running = start(max_bytes=1000)
    page = browser.new_page()
    page.goto(str(running.client.base_url))
    page.wait_for_selector("#model option", state="attached")
    add(page, PHOTO)
    page.wait_for_selector("#photos .state.bad", timeout=60_000)
    # the browser may see the connection closed before it has read the reason
    said = page.locator("#photos .state.bad").inner_text()
    assert "at most 1000" in said or "too large" in said
    page.close()


def test_a_token_is_asked_for(start, browser):
    running = start(token="sesame")
    page = browser.new_page()
    page.goto(str(running.client.base_url))
    page.wait_for_selector("#login", state="visible")
    page.fill("#token", "sesame")
    page.click("#login button")
    page.wait_for_selector("#login", state="hidden")
    add(page, PHOTO)
    page.wait_for_selector("#download:not([disabled])", timeout=60_000)
    page.close()
