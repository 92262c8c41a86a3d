"""The report of a run: its table in every format, and its page in a real browser."""

import csv
import dataclasses
import json
import os
import re

import pytest
from PIL import Image
from report_fixtures import METHODS, make_run

from hbr.config import ConfigError
from hbr.evaluation.report import FORMATS, render
from hbr.evaluation.report.pictures import by_importance, scenes
from hbr.evaluation.report.tables import build, verdict_line
from hbr.evaluation.results import (
    BenchmarkRun,
    Cell,
    DataSetInfo,
    MethodInfo,
    PictureRow,
    TableLayout,
)
from hbr.metrics import METRICS
from opened_pages import opened

HOSTILE = '</script><img src=x onerror=alert(1)>"&\\_$%'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page_file(run, tmp_path_factory):
    return render(run, tmp_path_factory.mktemp("page"), ["html"])[0]


def small(rows="methods") -> BenchmarkRun:
    """Two methods on two data sets, and one number that is better low."""
    means = {("a", "x"): (0.30, 2.5), ("b", "x"): (0.30, 1.0), ("a", "y"): (0.2, None)}
    cells = []
    for (method, data_set), (high, low) in means.items():
        cells += [
            Cell(method=method, data_set=data_set, metric="ssim-y", mean=high),
            Cell(
                method=method,
                data_set=data_set,
                metric="gmsd",
                mean=low,
                error=None if low else "weights are missing",
            ),
        ]
    outside = {"paper": 0.2, "difference": -0.1, "tolerance": 0.05, "verdict": "outside"}
    cells.append(Cell(method="c", data_set="x", metric="ssim-y", mean=0.1, **outside))
    cells.append(
        Cell(method="d", data_set="x", metric="ssim-y", mean=None, paper=0.9, verdict="not run")
    )
    return BenchmarkRun(
        name="small",
        title="Small",
        layout=TableLayout(rows=rows, columns={"x": ("ssim-y", "gmsd"), "y": ("ssim-y", "gmsd")}),
        data_sets=(DataSetInfo(name="x", n=1), DataSetInfo(name="y", n=1)),
        methods=(*(MethodInfo(name=m) for m in "abc"), MethodInfo(name="d", run=False)),
        metrics=(METRICS["ssim-y"], METRICS["gmsd"]),
        rows=(),
        cells=tuple(cells),
    )


def test_commands_in_messages_stay_code(run, tmp_path):
    warning = "brisque needs weights; `hbr fetch brisque_x` gets *them*, a ` stays"
    (file,) = render(dataclasses.replace(run, warnings=(warning,)), tmp_path, ["md"])
    expected = r"**brisque needs weights; `hbr fetch brisque_x` gets \*them\*, a \` stays**"
    assert expected in file.read_text(encoding="utf-8").splitlines()


def test_best_and_second_of_each_column():
    table = build(small())
    assert table.groups == (("x", 2), ("y", 2))
    assert [c.heading for c in table.columns[:2]] == ["SSIM-Y ↑", "GMSD ↓"]
    ranks = {line.name: [entry.rank for entry in line.entries] for line in table.lines}
    # equals share the first place; what is alone in its column, or was not run, has none
    assert ranks["a"] == ["best", "second", "", ""]
    assert ranks["b"] == ["best", "best", "", ""]
    assert ranks["c"] == ["second", "", "", ""]
    assert ranks["d"] == ["", "", "", ""]
    a, c, d = table.lines[0], table.lines[2].entries[0], table.lines[3].entries[0]
    assert a.entries[3].note == "weights are missing"
    assert (c.paper, c.difference, c.verdict, c.tone) == (
        "0.2000",
        "−0.1000",
        "outside ±0.05",
        "bad",
    )
    assert (d.mean, d.paper, d.verdict) == ("–", "0.9000", "not run")
    assert verdict_line(small()) == (
        "Against the published numbers: 1 outside tolerance, 1 not run."
    )


def test_data_sets_may_stand_in_the_rows():
    table = build(small("data sets"))
    assert (table.corner, [line.name for line in table.lines]) == ("data set", ["x", "y"])
    assert [name for name, _ in table.groups] == list("abcd")
    assert [e.mean for e in table.lines[1].entries[:2]] == ["0.2000", "–"]


def test_every_format_tells_the_same(run, tmp_path):
    files = render(run, tmp_path)
    assert [f.suffix[1:] for f in files] == list(FORMATS)
    html, md, tex, rows = (f.read_text() for f in files)
    cells = list(csv.DictReader(rows.splitlines()))
    assert len(cells) == len(run.cells)
    for cell, told in zip(run.cells, cells, strict=True):
        assert told["mean"] == ("" if cell.mean is None else repr(cell.mean))
        if cell.mean is not None:
            digits = f"{cell.mean:.{2 if cell.metric == 'psnr-rgb' else 4}f}"
            assert all(digits in text for text in (html, md, tex))
    best = max(c.mean for c in run.cells if c.metric == "psnr-rgb" and c.mean is not None)
    assert f"**{best:.2f}** (24.17; " in md
    assert rf"\textbf{{{best:.2f}}} {{\scriptsize(24.17)}}" in tex
    assert r"nano \& <co> &" in tex
    assert r"\toprule" in tex
    for text in (html, md):
        assert "The LQ files are not the published ones." in text
        assert "the program wrote 5 of 6" in text
        assert "0123abc" in text
        assert "ab" * 32 in text
    before = [f.read_bytes() for f in files]
    assert [f.read_bytes() for f in render(run, tmp_path)] == before


def test_latex_compiles_as_far_as_can_be_told_without_it(run, tmp_path):
    """Braces and environments are balanced, each line has the columns of the heading."""
    hostile = dataclasses.replace(run, title=HOSTILE, layout=TableLayout(caption=HOSTILE))
    for tex in (
        p.read_text() for r in (run, hostile, small()) for p in render(r, tmp_path, ["tex"])
    ):
        bare = re.sub(r"\\[{}$&%#_]", "", tex)
        assert bare.count("{") == bare.count("}")
        assert tex.count(r"\begin{") == tex.count(r"\end{") == 2
        body = bare.split(r"\midrule")[1].split(r"\bottomrule")[0]
        columns = re.search(r"\\begin\{tabular\}\{(lr*)\}", tex)[1].count("r") + 1
        assert {line.count("&") + 1 for line in body.strip().splitlines()} == {columns}


def test_unknown_formats_are_refused_and_nothing_is_written(run, tmp_path):
    with pytest.raises(ConfigError, match="pdf"):
        render(run, tmp_path / "out", ["html", "pdf"])
    assert not (tmp_path / "out").exists()


def test_what_matters_most_comes_in_first(run):
    order = by_importance(run)
    assert sorted(order) == sorted({(r.data_set, r.stem) for r in run.rows})
    psnr = {r.stem: r.values["psnr-rgb"] for r in run.rows if r.method == "input"}
    assert order[0] == ("toy", max(psnr, key=psnr.get))
    assert order[1] == ("toy", min(psnr, key=psnr.get))
    everything = scenes(run, edge=64, budget=10**9)
    assert len(everything) == 6
    first = everything[order[0]]
    assert (first.width, first.height) == (96, 120)
    assert first.lq.startswith("data:image/webp;base64,")
    # one cannot be read, one never came; the others are there
    missing = {k: set(METHODS) - set(s.restored) for k, s in everything.items()}
    assert {k[1]: m for k, m in missing.items() if m} == {
        "photo0": {"input"},
        "photo2": {"Real-ESRGAN+"},
    }
    one = sum(len(t) for t in (first.lq, first.hq, *first.restored.values()))
    assert list(scenes(run, edge=64, budget=one)) == order[:1]
    assert scenes(run, edge=64, budget=one - 1) == {}


def test_a_run_without_pictures_or_methods_has_a_report(tmp_path, browser):
    run = small()
    nothing = dataclasses.replace(run, methods=(), metrics=(), data_sets=(), cells=())
    nothing = dataclasses.replace(nothing, layout=TableLayout(), title=HOSTILE)
    for number, some in enumerate((run, nothing)):
        files = render(some, tmp_path / str(number))
        page = opened(browser, files[0])
        assert page.inner_text("h1") == some.title
        assert page.wrong == []


def drag(page, start: float, end: float) -> None:
    box = page.locator("#frame").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], y, steps=4)
    page.mouse.up()


CLIP = "getComputedStyle(document.querySelector('#left-image')).clipPath"


def test_the_slider_moves_the_cut(page_file, browser, tmp_path):
    page = opened(browser, page_file, viewport={"width": 1280, "height": 900})
    page.locator("#frame").scroll_into_view_if_needed()
    page.select_option("#stem", label="photo3")
    assert page.inner_text("#left-tag") == "LQ"
    assert page.inner_text("#right-tag") == "nano & <co>"
    assert page.evaluate(CLIP) == "inset(0px 50% 0px 0px)"

    def strips() -> list[bytes]:
        """Pixels a quarter and three quarters of the way across."""
        page.locator("#frame").screenshot(path=tmp_path / "now.png")
        with Image.open(tmp_path / "now.png") as now:
            places = (now.width // 4, now.width * 3 // 4)
            boxes = [(x, 20, x + 6, now.height - 60) for x in places]
            return [now.convert("RGB").crop(box).tobytes() for box in boxes]

    before = strips()
    drag(page, 0.5, 0.9)
    covered = float(re.match(r"inset\(0px ([\d.]+)%", page.evaluate(CLIP))[1])
    assert 5 < covered < 15
    after = strips()
    assert after[0] == before[0]  # the left picture, as before
    assert after[1] != before[1]  # and now here too
    page.focus("#slider")
    page.keyboard.press("Home")
    assert page.evaluate(CLIP) == "inset(0px 100% 0px 0px)"
    page.select_option("#left", label="HQ")
    page.keyboard.press("Tab")
    assert page.inner_text("#left-tag") == "HQ"
    page.click("#next")
    assert page.locator("#stem option:checked").inner_text() == "photo4"
    assert page.inner_text("#left-tag") == "HQ"
    assert page.wrong == []


def test_a_point_tells_its_name_and_opens_its_picture(page_file, browser):
    page = opened(browser, page_file, viewport={"width": 1280, "height": 900})
    points = page.locator("#points .point")
    assert points.count() == 17
    point = page.locator("#points .point[aria-label='Real-ESRGAN+, photo4']")
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    assert page.inner_text("#tip").startswith("photo4\nReal-ESRGAN+: ")
    point.click(force=True)
    assert page.locator("#stem option:checked").inner_text() == "photo4"
    assert page.inner_text("#right-tag") == "Real-ESRGAN+"
    page.wait_for_function("document.querySelector('#frame').getBoundingClientRect().top < 300")
    # against the same metric of the input, which is then not a series of its own
    page.select_option("#across", label="the same of input")
    assert points.count() == 11
    page.click("#legend button:has-text('Real-ESRGAN+')")
    assert points.count() == 6
    assert page.wrong == []


def test_best_and_worst_are_those(run, page_file, browser):
    page = opened(browser, page_file)
    page.select_option("#extreme-metric", label="SSIM-RGB")
    page.select_option("#extreme-method", label="Real-ESRGAN+")
    values = {
        r.stem: r.values["ssim-rgb"] for r in run.rows if r.method == "Real-ESRGAN+" and r.values
    }
    best_first = sorted(values, key=values.get, reverse=True)
    assert page.locator("#extremes small").all_inner_texts() == [*best_first[:4], best_first[-1]]
    page.locator("#extremes button").last.click()
    assert page.locator("#stem option:checked").inner_text() == best_first[-1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(page_file, browser, scheme):
    page = opened(browser, page_file, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    contrast = page.evaluate(
        """() => {
          const root = getComputedStyle(document.documentElement);
          const light = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16) / 255)
            .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const value = (name) => root.getPropertyValue('--' + name).trim();
          const names = ['ink', 'quiet', 'accent', 'good', 'bad', 'warn'];
          for (let i = 0; i < 6; i += 1) names.push(`c${i}`);
          return Object.fromEntries(names.map((name) => {
            const [a, b] = [light(value(name)), light(value('paper'))];
            return [name, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
          }));
        }"""
    )
    assert min(contrast.values()) >= 4.5, contrast  # WCAG 2 AA
    assert page.wrong == []


def test_names_cannot_break_out_of_the_page(run, browser, tmp_path):
    rows = [dataclasses.replace(r, method=HOSTILE, stem=f"{HOSTILE}{r.stem}") for r in run.rows[:3]]
    cells = [
        Cell(
            method=HOSTILE,
            data_set=HOSTILE,
            metric="psnr-rgb",
            mean=1.0,
            verdict=f"not comparable: {HOSTILE}",
            paper=1.0,
        )
    ]
    rows += [PictureRow(method=HOSTILE, data_set=HOSTILE, stem="x", error=HOSTILE)]
    hostile = dataclasses.replace(
        run,
        title=HOSTILE,
        paper=HOSTILE,
        warnings=(HOSTILE,),
        rows=tuple(rows),
        cells=tuple(cells),
        methods=(
            MethodInfo(
                name=HOSTILE, settings={HOSTILE: {HOSTILE: 1}}, failed={"toy": {"s": HOSTILE}}
            ),
        ),
        data_sets=(*run.data_sets, DataSetInfo(name=HOSTILE, n=1, edition=HOSTILE, status=HOSTILE)),
        layout=TableLayout(caption=HOSTILE, columns={HOSTILE: ("psnr-rgb",)}, notes=(HOSTILE,)),
        settings={HOSTILE: HOSTILE},
        differences=(),
    )
    page = opened(browser, render(hostile, tmp_path, ["html", "md"])[0])
    assert page.inner_text("h1") == HOSTILE
    assert page.locator("img[src='x']").count() == 0
    data = json.loads(page.locator("#data").text_content())
    assert data["methods"] == [HOSTILE]
    assert page.wrong == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_a_name_that_is_not_utf8(run, tmp_path):
    name = os.fsdecode(b"caf\xe9")
    rows = [dataclasses.replace(row, stem=name, error="lost") for row in run.rows[:1]]
    strange = dataclasses.replace(run, rows=rows)
    strange.save(tmp_path)
    assert BenchmarkRun.load(tmp_path).rows[0].stem == name
    for file in render(strange, tmp_path):
        shown = "caf\\udce9" in file.read_text(encoding="utf-8")
        assert shown or file.suffix in (".csv", ".tex")


def test_it_is_one_file(page_file):
    text = page_file.read_text()
    outside = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[\w./:]+""", text)
    assert [o for o in outside if "http" in o or "//" in o] == []
    assert "default-src 'none'" in text
