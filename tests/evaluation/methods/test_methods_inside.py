"""Methods that run inside hbr: its models, folders of results, baselines; and the ledger."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import hbr
from hbr.config import ConfigError, from_dict
from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.config import (
    BaselineConfig,
    HbrConfig,
    ResultsFolderConfig,
    SpandrelConfig,
)
from hbr.evaluation.methods.result_folder import LEDGER
from hbr.models.protocol import Sampling

Photos = dict[str, Path]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_hbr_is_the_restorer(lq: Photos, tmp_path: Path) -> None:
    config = HbrConfig(
        model="nano", scale=1.5, color="adain", device="cpu", dtype="float32", seed=3
    )
    lines: list[str] = []
    outcome = build_method(config).run({"a": lq["a"]}, tmp_path / "out", report=lines.append)
    restorer = hbr.Restorer.from_pretrained("nano", device="cpu", dtype="float32")
    expected = restorer(lq["a"], scale=1.5, color="adain", seed=3).pixels
    assert np.array_equal(pixels(outcome.restored["a"]), expected)
    assert expected.shape == (60, 84, 3)
    assert lines == ["1 of 1: a"]
    told = outcome.provenance
    assert told["sha256"] == restorer.sha256
    assert (told["model"], told["color"], told["seed"]) == ("nano", "adain", 3)
    assert not {"prompt", "maps", "sampling"} & {*told}, "as in runs before there were these"
    assert told["made_with"][0].items() >= {"hbr": hbr.__version__, "device": "cpu"}.items()

    again = build_method(config).run({"a": lq["a"]}, tmp_path / "out", report=lines.append)
    assert (again, len(lines)) == (outcome, 1), "nothing is done twice"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "no-such"}, "no model is called 'no-such'"),
        ({"device": "cuda:77"}, "device is 'cuda:77'"),
        ({"sampling": Sampling(steps=2)}, "restores in one step: there is nothing to sample"),
        ({"prompt": "a man"}, "takes no prompt"),
    ],
)
def test_hbr_that_cannot_run(
    lq: Photos, tmp_path: Path, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(MethodError, match=says):
        build_method(HbrConfig(**settings)).run(lq, tmp_path / "out")  # type: ignore[arg-type]


def test_baselines(lq: Photos, tmp_path: Path) -> None:
    image = Image.open(lq["a"])
    rgb = np.asarray(image)
    bgr = np.ascontiguousarray(rgb[..., ::-1])
    nlm = cv2.fastNlMeansDenoisingColored(bgr, None, 5, 5, 7, 21)[..., ::-1]
    resample = Image.Resampling.BICUBIC
    cases = [
        (BaselineConfig("input"), rgb),
        (BaselineConfig("bicubic"), rgb),
        (BaselineConfig("bicubic", scale=4.0), np.asarray(image.resize((224, 160), resample))),
        (BaselineConfig("nlm", strength=5.0), nlm),
        (BaselineConfig("median"), cv2.medianBlur(rgb, 3)),
    ]
    for number, (config, expected) in enumerate(cases):
        out = tmp_path / str(number)
        outcome = build_method(config).run({"a": lq["a"]}, out)
        assert np.array_equal(pixels(outcome.restored["a"]), expected), config
        assert outcome.seconds > 0
    assert len({case[1].tobytes() for case in cases}) == 4
    with pytest.raises(ConfigError, match="scale is 2"):
        BaselineConfig("input", scale=2.0)


def test_a_folder_of_results(lq: Photos, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "sub").mkdir(parents=True)
    image = Image.open(lq["a"])
    image.save(made / "a.png")
    image.save(made / "a.b.png")  # the result of another stem, a.b
    image.rotate(180).save(made / "a_1_out.png")
    image.resize((12, 9)).save(made / "b.c d.png")
    image.convert("L").save(made / "sub" / "e.bmp")
    (made / "[f]*.png").write_bytes(b"")
    config = ResultsFolderConfig(folder=made)
    outcome = build_method(config).run(lq, tmp_path / "out")
    assert set(outcome.restored) == {"a", "a_1", "sub/e"}
    assert np.array_equal(pixels(outcome.restored["a"]), pixels(made / "a.png"))
    assert np.array_equal(pixels(outcome.restored["a_1"]), pixels(made / "a_1_out.png"))
    assert pixels(outcome.restored["sub/e"]).shape == (40, 56, 3)
    assert outcome.failed["b.c d"] == "the result is 12×9 pixels; expected were 56×40"
    assert "is empty" in outcome.failed["[f]*"]

    # results are looked at again when they change, and found when they come
    image.rotate(180).save(made / "a.png")
    image.save(made / "[f]*.png")
    again = build_method(config).run(lq, tmp_path / "out")
    assert set(again.restored) == {"a", "a_1", "sub/e", "[f]*"}
    assert np.array_equal(pixels(again.restored["a"]), pixels(made / "a.png"))

    image.save(made / "a.jpg")
    gone = {"a": lq["a"], "gone": lq["a"]}
    last = build_method(config).run(gone, tmp_path / "out")
    assert last.failed["a"] == "2 files could be the result: a.jpg, a.png"
    assert "no result (gone.*, gone_out.*, gone_SwinIR.* in " in last.failed["gone"]
    assert not last.restored


def test_folders_that_cannot_be_read(lq: Photos, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="is not a folder of results"):
        build_method(ResultsFolderConfig(folder=tmp_path / "gone")).run(lq, tmp_path / "out")
    with pytest.raises(MethodError, match="already contains the results"):
        build_method(ResultsFolderConfig(folder=tmp_path)).run(lq, tmp_path)


def test_a_photo_that_fails_costs_itself(lq: Photos, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(lq["a"].read_bytes()[:500])
    (tmp_path / "folder.png").mkdir()
    bad = {
        "bad": tmp_path / "bad.png",
        "gone": tmp_path / "gone.png",
        "dir": tmp_path / "folder.png",
    }
    lines: list[str] = []
    outcome = build_method(BaselineConfig("input")).run(
        {**bad, **lq}, tmp_path / "out", report=lines.append
    )
    assert set(outcome.failed) == set(bad)
    assert set(outcome.restored) == set(lq)
    assert all("\n" not in line for line in outcome.failed.values())
    assert "cut short" in outcome.failed["bad"]


RUN = """
import sys, time
from pathlib import Path
from hbr.evaluation.methods import build_method
from hbr.evaluation.methods.config import BaselineConfig
from hbr.evaluation.methods import baseline
real = baseline.restore
def slow(pixels, config):
    time.sleep(0.05)
    return real(pixels, config)
baseline.restore = slow
inputs = {f"{p.stem}": p for p in sorted(Path(sys.argv[1]).glob("*.png"))}
build_method(BaselineConfig("nlm")).run(inputs, Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_undisturbed(tmp_path: Path, lq: Photos) -> None:
    photos, out, whole = tmp_path / "lq", tmp_path / "out", tmp_path / "whole"
    photos.mkdir()
    base = pixels(lq["a"])
    for number in range(24):
        Image.fromarray(np.roll(base, number, axis=1)).save(photos / f"{number:02d}.png")
    command = [sys.executable, "-c", RUN, str(photos), str(out)]
    for goal in (7, 15):
        process = subprocess.Popen(command)
        while len(list(out.glob("*.png"))) < goal:
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        for path in out.glob("*.png"):
            assert pixels(path).shape == base.shape, "whole or not at all"
        kept = {path.name: path.stat().st_mtime_ns for path in out.glob("*.png")}
        assert len(kept) < 24
    subprocess.run(command, check=True)
    subprocess.run([sys.executable, "-c", RUN, str(photos), str(whole)], check=True)
    assert {p.name: p.read_bytes() for p in out.glob("*.png")} == {
        p.name: p.read_bytes() for p in whole.glob("*.png")
    }
    assert len(list(out.glob("*.png"))) == 24
    remade = [name for name, t in kept.items() if (out / name).stat().st_mtime_ns != t]
    assert len(remade) <= 1, "only what the kill came between is made twice"


def test_a_line_that_was_cut_short_is_done_again(lq: Photos, tmp_path: Path) -> None:
    out = tmp_path / "out"
    method = build_method(BaselineConfig("input"))
    method.run(lq, out)
    text = (out / LEDGER).read_text()
    assert len(text.splitlines()) == len(lq) + 2
    os.truncate(out / LEDGER, len(text) - 20)
    lines: list[str] = []
    outcome = method.run(lq, out, report=lines.append)
    assert len(lines) == 1
    assert set(outcome.restored) == set(lq)
    rows = [json.loads(line) for line in (out / LEDGER).read_text().splitlines()]
    assert [row["stem"] for row in rows if "stem" in row] == list(lq)

    (out / "a.png").unlink()
    method.run(lq, out, report=lines.append)
    assert lines[1:] == ["1 of 1: a"], "a result that somebody removed is made again"

    for text in ("not JSON", "5", '{"method": 3}'):
        (out / LEDGER).write_text(text + "\n")
        with pytest.raises(MethodError, match=r"ledger\.jsonl is damaged"):
            method.run(lq, out)


def test_every_kind_is_read_from_plain_values() -> None:
    from dataclasses import dataclass

    from hbr.evaluation.methods.config import MethodConfig, ProgramConfig

    @dataclass(frozen=True)
    class Benchmark:
        methods: dict[str, MethodConfig]

    globals()["MethodConfig"] = MethodConfig
    plain = {
        "nano": {"kind": "hbr", "tile": 0},
        "gan": {"kind": "spandrel", "file": "x.pth", "input": "small", "tile": "auto"},
        "peer": {"kind": "program", "program": "seesr", "python": "conda:seesr"},
        "mine": {
            "kind": "program",
            "program": {"command": ["run", "{input}", "{output}"], "factor": 1},
        },
        "made": {"kind": "folder", "folder": "results"},
        "lq": {"kind": "baseline", "baseline": "input"},
    }
    read = from_dict(Benchmark, {"methods": plain}).methods
    kinds = [
        HbrConfig,
        SpandrelConfig,
        ProgramConfig,
        ProgramConfig,
        ResultsFolderConfig,
        BaselineConfig,
    ]
    assert [type(config) for config in read.values()] == kinds
    assert isinstance(read["made"], ResultsFolderConfig)
    assert read["made"].folder == Path("results")
    for config in read.values():
        build_method(config)
    for bad, says in [
        ({"kind": "magic"}, "methods.x.kind is 'magic'"),
        ({"kind": "hbr", "tile": -1}, "tile is -1"),
        ({"kind": "hbr", "tile": True}, "tile"),
        ({"kind": "spandrel"}, "file is missing"),
        ({"kind": "spandrel", "file": "x", "sha256": "abc"}, "64 small hexadecimal"),
        ({"kind": "baseline", "baseline": "best"}, "baseline is 'best'"),
        ({"kind": "folder", "folder": "x", "outputs": ["a.png"]}, "{stem}"),
        ({"kind": "program", "program": "x", "attempts": 0}, "attempts is 0"),
        ({"kind": "program", "program": {"command": ["a"]}}, "{input}"),
    ]:
        with pytest.raises(ConfigError) as caught:
            from_dict(Benchmark, {"methods": {"x": bad}})
        assert says in str(caught.value)


def test_spandrel_that_is_not_installed(lq: Photos, tmp_path: Path) -> None:
    with pytest.raises(MethodError, match=r"gone\.pth: No such file"):
        build_method(SpandrelConfig(file=tmp_path / "gone.pth")).run(lq, tmp_path / "out")
    try:
        import spandrel  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("spandrel is installed here")
    (tmp_path / "x.pth").write_bytes(b"weights")
    with pytest.raises(MethodError, match=r"pip install 'hbr\[spandrel\]'"):
        build_method(SpandrelConfig(file=tmp_path / "x.pth", device="cpu")).run(
            lq, tmp_path / "out"
        )


def test_reading_configurations_is_light() -> None:
    code = (
        "import sys; from hbr.evaluation.methods.programs import known_programs; known_programs();"
        "print(*{'torch', 'PIL', 'numpy', 'cv2', 'spandrel'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
