"""The page in a real browser: photos in, the right bytes out, and nothing from elsewhere."""

from pathlib import Path

import pytest
from PIL import Image
from service_photo import PHOTO, write_large


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
