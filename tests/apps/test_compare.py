"""`hbr compare`: its page in a real browser, and what it does with bad photos and models."""

import base64
import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hbr.config import ConfigError
from hbr.evaluation.side_by_side import BUDGET, compare, name_models, name_photos
from hbr.evaluation.side_by_side_page import as_html
from hbr.restoration.settings import RestoreSettings

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]

DATA = Path(__file__).parents[1] / "data"
HOSTILE = "a<img src=x onerror=alert(1)>.png"


@pytest.fixture(scope="module")
def page_file(call_hbr: Run, toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photos with their references, through nano and a model that changes nothing."""
    folder = tmp_path_factory.mktemp("compare")
    for name, source in (("one.png", "purple.jpg"), (HOSTILE, "blue.png")):
        hq = Image.open(DATA / source).convert("RGB").crop((40, 40, 136, 120))
        for kind, picture in (("hq", hq), ("lq", hq.filter(ImageFilter.GaussianBlur(2)))):
            (folder / kind).mkdir(exist_ok=True)
            picture.save(folder / kind / name)
    page = folder / "page.html"
    asked = ("compare", folder / "lq", "--reference", folder / "hq", "--device", "cpu")
    done = call_hbr(*asked, "--models", f"nano,{toy}", "-o", page)
    assert (done.returncode, done.stdout) == (0, f"{page}\n"), done.stderr
    return page


def luma(path: Path) -> np.ndarray:
    """Y of BT.601, 16 to 235."""
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float64)
    return 16 + pixels @ np.array([65.481, 128.553, 24.966]) / 255


def test_its_numbers_are_those_of_the_files(page_file: Path) -> None:
    text = page_file.read_text(encoding="utf-8")
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert data["methods"] == ["input", "nano", "toy"]
    assert data["stems"] == [HOSTILE, "one.png"]
    assert [m["name"] for m in data["metrics"]][:3] == ["seconds", "PSNR-Y", "SSIM-Y"]
    rows = {(data["stems"][row[2]], data["methods"][row[1]]): row[3] for row in data["rows"]}
    assert len(rows) == 6
    lq, hq = (luma(page_file.parent / kind / "one.png") for kind in ("lq", "hq"))
    expected = 10 * np.log10(255**2 / np.mean((lq - hq) ** 2))
    assert rows["one.png", "input"][0] is None
    assert rows["one.png", "input"][1] == pytest.approx(expected, abs=0.01)
    assert rows["one.png", "toy"][1] == pytest.approx(expected, abs=0.1)
    assert rows["one.png", "nano"][1] != pytest.approx(expected, abs=0.005)
    assert all(rows["one.png", model][0] > 0 for model in ("nano", "toy"))
    assert data["scenes"]["0/1"]["size"] == [96, 80]
    assert len(set(filter(None, data["scenes"]["0/1"]["out"]))) >= 2
    assert data["scenes"]["0/1"]["hq"] not in data["scenes"]["0/1"]["out"]


CLIP = "getComputedStyle(document.querySelector('#left-image')).clipPath"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page(page_file: Path, browser, width: int, scheme: str) -> None:  # type: ignore[no-untyped-def]
    size = {"width": width, "height": 900}
    page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
    page.set_default_timeout(30_000)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    own = ("data:", page_file.as_uri())
    page.on("request", lambda r: None if r.url.startswith(own) else wrong.append(r.url))
    page.goto(page_file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.inner_text("#left-tag") == "input"
    assert page.inner_text("#right-tag") == "nano"
    assert page.locator("#stem option:checked").inner_text() == HOSTILE
    assert page.evaluate(CLIP) == "inset(0px 50% 0px 0px)"
    page.focus("#slider")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(CLIP) == "inset(0px 49.5% 0px 0px)"
    page.keyboard.press("Home")
    assert page.evaluate(CLIP) == "inset(0px 100% 0px 0px)"
    page.click("#next")
    page.select_option("#left", label="reference")
    page.select_option("#right", label="toy")
    assert page.inner_text("#left-tag") == "reference"
    assert page.get_attribute("#right-image", "alt") == "toy of one.png"
    assert page.locator("#numbers tbody tr").count() == 3
    assert page.locator("#results tbody tr").count() == 3
    assert page.evaluate("[...document.images].every((i) => i.complete && i.naturalWidth === 96)")
    assert wrong == []


def test_a_bad_photo_a_missing_model_and_a_wrong_reference_cost_a_line_each(
    call_hbr: Run, toy: Path, photo: Write, tmp_path: Path
) -> None:
    for number, name in enumerate(("a.png", "b.png")):
        photo(tmp_path / "in" / name, number)
    (tmp_path / "in" / "bad.jpg").write_text("no photo")
    photo(tmp_path / "hq" / "a.png")
    photo(tmp_path / "hq" / "b.png", size=(30, 30))
    page = tmp_path / "page.html"
    asked = ["compare", tmp_path / "in", tmp_path / "gone.jpg", "--models", f"{toy},nosuch"]
    done = call_hbr(*asked, "-g", tmp_path / "hq", "-o", page)
    assert (done.returncode, done.stdout) == (3, f"{page}\n")
    lines = [line for line in done.stderr.splitlines() if "lpips" not in line]
    said = [
        "gone.jpg: does not exist",
        "1 of 3 photos have no reference",
        "the reference has 30×30 pixels, the result 48×40",
        "bad.jpg: is not a photograph",
        "no model is called 'nosuch'",
    ]
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True)), lines
    text = page.read_text(encoding="utf-8")
    assert text.count('class="warning"') == 1 + len(said) - 1  # one is that of noscript
    data = json.loads(text.split('id="data">')[1].split("</script>")[0])
    assert (data["methods"], data["stems"]) == (["input", "toy"], ["a.png", "b.png"])

    before = page.read_bytes()
    again = call_hbr(*asked, "-o", page)
    assert again.returncode == 2
    assert "exists; --overwrite replaces it" in again.stderr
    assert page.read_bytes() == before
    assert call_hbr(*asked, "-o", page, "--overwrite").returncode == 3
    assert page.read_bytes() != before


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["-o", "page.png"], 2, "page.png must end in .html"),
        (["--device", "abacus"], 2, "--device"),
        (["--fidelity", "2"], 2, "--fidelity"),
        (["--fidelity", "0.5"], 2, "none of these has them"),
        (["--models", ","], 2, "models is empty"),
        (["--scale", "9"], 2, "--scale"),
        (["--tile", "big"], 2, "--tile"),
        (["--models", "nosuch"], 4, "no model is called 'nosuch'"),
        (["-g", "nowhere"], 1, "nowhere: does not exist"),
        (["-g", "others"], 1, "no reference has the stem of a photo (a against z)"),
    ],
)
def test_what_leaves_no_page(
    call_hbr: Run,
    toy: Path,
    photo: Write,
    tmp_path: Path,
    options: list[str],
    code: int,
    says: str,
) -> None:
    photo(tmp_path / "a.png")
    photo(tmp_path / "others" / "z.png")
    usual = ("a.png", "-o", "page.html", "--models", str(toy))
    done = call_hbr("compare", *usual, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "others"]


def test_no_photo_at_all_leaves_no_page(call_hbr: Run, toy: Path, tmp_path: Path) -> None:
    done = call_hbr("compare", "gone.png", "-o", "p.html", "--models", toy, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "hbr: gone.png: does not exist; check the name\n"
    assert list(tmp_path.iterdir()) == []


def test_large_photos_are_cropped_and_many_are_left_out(
    toy: Path, photo: Write, tmp_path: Path
) -> None:
    photo(tmp_path / "a.png", size=(350, 40))
    photo(tmp_path / "b.png", number=1)
    photos = name_photos([(tmp_path / n, Path(n)) for n in ("a.png", "b.png", "a.png")], None)
    assert [p.name for p in photos] == ["a.png", "b.png"]
    settings = RestoreSettings(scale=3.0)
    told: list[tuple[int, int]] = []
    usual = {"device": "cpu", "say": pytest.fail, "progress": lambda *at: told.append(at)}
    entrants = name_models([str(toy)])
    found = compare(photos, entrants, settings, budget=BUDGET, **usual)  # type: ignore[arg-type]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (found.sizes["a.png"], found.shown["a.png"]) == ((1050, 120), (1024, 120))
    uri = found.pictures["a.png"]["toy"]
    picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.size == (1024, 120)
    assert "the middle is shown" in as_html(found, settings)

    small = compare(photos, entrants, settings, budget=1, **usual)  # type: ignore[arg-type]
    assert list(small.pictures) == ["a.png"]
    assert small.restored == 2
    assert "first 1 of 2 photos" in as_html(small, settings)


def test_each_end_of_a_model_takes_part(
    call_hbr: Run, toy: Path, photo: Write, tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(toy, framework="np") as file:
        metadata = file.metadata()
    weights = {name: tensor + 0.01 for name, tensor in load_file(toy).items()}
    save_file(weights, tmp_path / "sharp.safetensors", metadata=metadata)
    both = tmp_path / "both.safetensors"
    done = call_hbr("models", "join", toy, tmp_path / "sharp.safetensors", "-o", both)
    assert done.returncode == 0, done.stderr
    entrants = name_models([str(both), str(toy), str(both)], [1.0, 0.0])
    assert [e.label for e in entrants] == ["both, fidelity 1", "both, fidelity 0", "toy"]
    assert [e.fidelity for e in entrants] == [1.0, 0.0, None]
    page = tmp_path / "page.html"
    asked = ("compare", photo(tmp_path / "a.png"), "--models", both, "--fidelity", 1)
    done = call_hbr(*asked, "--fidelity", 0, "-o", page)
    assert done.returncode == 0, done.stderr
    data = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    assert data["methods"] == ["input", "both, fidelity 1", "both, fidelity 0"]
    _, faithful, sharp = data["scenes"]["0/0"]["out"]
    assert faithful != sharp


def test_labels_stay_apart(toy: Path, tmp_path: Path) -> None:
    copy = tmp_path / toy.name
    shutil.copy(toy, copy)
    assert [e.label for e in name_models(["nano", str(toy), str(copy)])] == [
        "nano",
        str(toy),
        str(copy),
    ]
    with pytest.raises(ConfigError, match="two ends"):
        name_models([str(toy)], [0.5])
