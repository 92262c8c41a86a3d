"""What a benchmark makes of data sets and methods, and what it says beside a paper's numbers."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from hbr.config import ConfigError
from hbr.evaluation.benchmark import Resources, run_benchmark
from hbr.evaluation.benchmark_config import load_benchmark
from hbr.evaluation.comparison import compare
from hbr.evaluation.editions import hash_files, write_checksums
from hbr.evaluation.pairing import find_pictures
from hbr.evaluation.results import BenchmarkRun, Cell, DataSetInfo, MethodInfo, TableLayout
from hbr.metrics import find_metric

PHOTO = Path(__file__).parents[1] / "data" / "purple.jpg"
INPUT = {"kind": "baseline", "baseline": "input"}
MEDIAN = {"kind": "baseline", "baseline": "median"}

Runs = Callable[..., BenchmarkRun]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four different cut-outs of a photograph."""
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(PHOTO) as image:
        for number in range(4):
            image.crop((0, 2 * number, 48, 2 * number + 40)).save(folder / f"p{number}.png")
    return folder


@pytest.fixture
def runs(tmp_path: Path, photos: Path) -> Runs:
    """Run a benchmark on the photos in this process."""

    def run(out: str = "run", *, workers: int = 0, resume: bool = False, **changes: Any) -> Any:
        data_set = {
            "hq": str(photos),
            "lq": {"kind": "recipe", "recipe": "light", "seed": 1},
            "metrics": ["psnr", "gmsd"],
        }
        values = {
            "title": "a test",
            "data_sets": {"photos": data_set},
            "methods": {"input": INPUT},
            **changes,
        }
        file = tmp_path / "test.yaml"
        file.write_text(yaml.safe_dump(values, sort_keys=False))
        benchmark = load_benchmark(str(file), {})
        resources = Resources(workers)
        return run_benchmark(benchmark, tmp_path / out, resources=resources, resume=resume)

    return run


def test_the_same_photos_give_the_same_numbers(runs: Runs) -> None:
    methods = {"input": INPUT, "median": MEDIAN}
    one, other = runs("a", methods=methods), runs("b", methods=methods, workers=2)
    for part in ("cells", "rows", "differences", "data_sets"):
        assert getattr(one, part) == getattr(other, part)
    assert one.cells[0].n == 4


def test_photos_in_sub_folders_are_of_the_folder_that_was_given(runs: Runs, photos: Path) -> None:
    (photos / "below").mkdir()
    for path in photos.glob("*.png"):
        path.rename(photos / "below" / path.name)
    lq = {"kind": "recipe", "recipe": "light", "seed": 1}
    values = {"hq": str(photos), "lq": lq, "metrics": ["psnr"], "recursive": True}
    (found,) = runs(data_sets={"photos": values}).data_sets
    assert (found.n, found.hq) == (4, str(photos))


def test_what_is_saved_is_read(runs: Runs, tmp_path: Path) -> None:
    run = runs()
    assert BenchmarkRun.load(tmp_path / "run") == run
    text = (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    assert dataclasses.replace(run, folder=Path()) == BenchmarkRun.from_json(text)
    with pytest.raises(ConfigError, match="schema is 99"):
        BenchmarkRun.from_json(json.dumps({**json.loads(text), "schema": 99}))


def test_differences_are_paired_and_know_which_way_is_better(
    runs: Runs, photos: Path, tmp_path: Path
) -> None:
    better = tmp_path / "better"
    run = runs("first")
    better.mkdir()
    for number in range(4):
        with (
            Image.open(photos / f"p{number}.png") as hq,
            Image.open(run.path(f"lq/photos/p{number}.png")) as lq,
        ):
            Image.blend(hq.convert("RGB"), lq.convert("RGB"), 0.5).save(better / f"p{number}.png")
    methods = {"better": {"kind": "folder", "folder": str(better)}, "input": INPUT}
    run = runs(methods=methods, against="input")
    found = {d.metric: d for d in run.differences}
    assert {d.method for d in run.differences} == {"better"}
    assert found["psnr-y"].mean > 0 > found["gmsd"].mean
    assert (found["psnr-y"].better, found["gmsd"].better) == (True, True)
    run = runs("reversed", methods=methods)
    assert [d.better for d in run.differences] == [False, False]
    rows = {(row.method, row.stem): row.values["psnr-y"] for row in run.rows}
    mean = sum(rows["input", f"p{n}"] - rows["better", f"p{n}"] for n in range(4)) / 4
    assert run.differences[0].mean == pytest.approx(mean)


def test_a_photo_that_cannot_be_read(runs: Runs, photos: Path) -> None:
    (photos / "p2.png").write_bytes(b"none")
    run = runs()
    assert "photos: 1 pictures cannot be degraded" in run.warnings
    assert {(cell.n, cell.failed) for cell in run.cells} == {(3, 1)}
    (row,) = (row for row in run.rows if row.error)
    assert row.stem == "p2"
    assert "is not a photograph" in (row.error or "")


def test_names_that_folders_cannot_have(runs: Runs, tmp_path: Path) -> None:
    names = ["a/b", "a b", "a*b", "..", "ä"]
    run = runs(methods=dict.fromkeys(names, MEDIAN))
    assert [cell.method for cell in run.cells if cell.n == 4] == [n for n in names for _ in "12"]
    assert len(list((tmp_path / "run" / "restored" / "photos").iterdir())) == len(names)


def cell_of(run: BenchmarkRun, *names: str) -> Cell | None:
    return next((c for c in run.cells if (c.method, c.data_set, c.metric) == names), None)


@pytest.fixture
def lq(tmp_path: Path, photos: Path) -> Path:
    """LQ in a folder of its own, and beside it the file `sums` of its checksums."""
    folder = tmp_path / "lq"
    shutil.copytree(photos, folder)
    for path in folder.iterdir():
        with Image.open(path) as image:
            image.quantize(16).convert("RGB").save(path)
    write_checksums(hash_files(find_pictures(folder), folder), tmp_path / "sums")
    return folder


@pytest.fixture
def verdicts(runs: Runs, photos: Path, lq: Path) -> Callable[..., list[str]]:
    """The verdicts of a run beside the paper's table 2."""

    def run(sums: Path | None, pictures: int | None = None) -> list[str]:
        source = {
            "kind": "folder",
            "folder": str(lq),
            "published": "osdhuman",
            "checksums": {"osdhuman": "" if sums is None else str(sums)},
        }
        metrics = ["psnr", "gmsd", "ssim"]
        data_set = {"lq": source, "hq": str(photos), "metrics": metrics, "pictures": pictures}
        found = runs(
            resume=(photos.parent / "run").exists(),
            data_sets={"PERSONA-Val": data_set},
            methods={"SeeSR": INPUT},
            paper="osdhuman.table2_methods",
            tolerance={"psnr": 100.0, "ssim": 1e-6},
        )
        cell = cell_of(found, "SeeSR", "PERSONA-Val", "psnr-y")
        assert cell is not None
        assert cell.mean is not None
        # the difference is told, whatever the verdict
        assert cell.difference == pytest.approx(cell.mean - 21.31)
        # the paper's other methods stand beside
        assert cell_of(found, "OSDHuman", "PERSONA-Val", "psnr-y") == Cell(
            method="OSDHuman",
            data_set="PERSONA-Val",
            metric="psnr-y",
            mean=None,
            paper=22.41,
            verdict="not run",
        )
        return [cell.verdict for cell in found.cells if cell.method == "SeeSR"]

    return run


def test_verdicts(verdicts: Callable[..., list[str]], lq: Path) -> None:
    sums = lq.parent / "sums"
    assert verdicts(sums) == ["within", "no paper value", "outside"]
    said = "; 4 pictures, where the published data set has 4216"
    assert verdicts(sums, 4216)[0].endswith(said)


def test_other_lq_files_are_told(verdicts: Callable[..., list[str]], lq: Path) -> None:
    unknown = "not comparable: the edition of the LQ files is unknown"
    assert verdicts(None)[0].startswith(unknown)
    with Image.open(lq / "p1.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(lq / "p1.png")
    verdict = verdicts(lq.parent / "sums")[0]
    assert verdict.startswith("not comparable: the LQ files are not the edition 'osdhuman'")
    assert "1 differ (first p1.png)" in verdict


def test_a_picture_of_lq_that_cannot_be_read(verdicts: Callable[..., list[str]], lq: Path) -> None:
    (lq / "p1.png").unlink()
    (lq / "p1.png").symlink_to("nowhere.png")
    verdict = verdicts(lq.parent / "sums")[0]
    assert "1 differ (first p1.png)" in verdict
    run = BenchmarkRun.load(lq.parent / "run")
    assert {row.stem: row.error for row in run.rows if row.error} == {
        "p1": f"{lq / 'p1.png'}: No such file or directory"
    }
    assert (run.cells[0].n, run.cells[0].failed) == (3, 1)


def test_no_verdict_between_editions_of_a_metric() -> None:
    """The paper's numbers are of pyiqa's NIQE, of clean-fid's resizing, and of today's versions."""
    measured = {
        "pyiqa-niqe": ("niqe 0.1.16", "within"),
        "niqe": ("2, 1a2b3c4d", "papers report pyiqa-niqe, another edition"),
        "fid": ("inception-v3-compat 0.4.0", "papers report fid-clean, another edition"),
        "fid-clean": ("inception-v3-compat, resized as clean-fid 0.4.0", "outside"),
        "lpips-alex": ("0.1, 1a2b3c4d", "within"),
        "dists": ("0, resized", "measured by version 0, resized of dists; now it is 1, not"),
        "psnr-y": ("1", "within"),
        "ssim-y": ("11", "measured by version 11 of ssim-y; now it is 1"),
    }
    infos = [dataclasses.replace(find_metric(m), version=v) for m, (v, _) in measured.items()]
    means = {"pyiqa-niqe": 3.575, "niqe": 3.575, "fid": 16.6, "fid-clean": 20.0}
    means |= {"lpips-alex": 0.2627, "dists": 0.1414, "psnr-y": 22.41, "ssim-y": 0.6363}
    run = BenchmarkRun(
        name="x",
        title="x",
        data_sets=(DataSetInfo(name="PERSONA-Val", n=4216, comparable=True, status="pinned"),),
        methods=(MethodInfo(name="OSDHuman"),),
        metrics=tuple(infos),
        cells=tuple(
            Cell(method="OSDHuman", data_set="PERSONA-Val", metric=metric, mean=mean, n=4216)
            for metric, mean in means.items()
        ),
        layout=TableLayout(columns={"PERSONA-Val": tuple(measured)}),
        rows=(),
    )
    found = compare(run, "osdhuman.table2_methods")
    cells = {cell.metric: cell for cell in found.cells if cell.method == "OSDHuman"}
    for metric, (_, expected) in measured.items():
        cell = cells[metric]
        assert cell.paper is not None
        assert cell.difference is not None
        if expected in ("within", "outside"):
            assert cell.verdict == expected
        else:
            assert cell.verdict.startswith(f"not comparable: {expected}")
            assert cell.tolerance is None


def test_beside_one_paper_after_another(verdicts: Callable[..., list[str]], lq: Path) -> None:
    verdicts(lq.parent / "sums")
    run = BenchmarkRun.load(lq.parent / "run")
    assert "ResShift*" in {method.name for method in run.methods}
    columns = TableLayout(columns={"PERSONA-Val": ("dists", "psnr-y")})
    other = compare(dataclasses.replace(run, layout=columns), "haodiff.table1_persona_val")
    assert {"SeeSR", "HAODiff"} <= {method.name for method in other.methods}
    assert "ResShift*" not in {cell.method for cell in other.cells}
    assert any(line.startswith("of the paper: ") for line in other.warnings)
    assert not any(line.startswith("of the paper: ") for line in compare(other, "").warnings)


def test_a_table_of_data_sets_is_of_their_pictures_alone(runs: Runs, lq: Path) -> None:
    source = {"kind": "folder", "folder": str(lq)}
    run = runs(
        data_sets={"VOC": {"lq": source, "metrics": ["brisque"]}},
        methods={"pictures": INPUT, "median": MEDIAN},
        paper="osdhuman.table1_datasets",
    )
    assert [(cell.method, cell.paper) for cell in run.cells] == [
        ("pictures", 21.2764),
        ("median", None),
    ]


def test_a_method_that_is_another_one_now(runs: Runs, tmp_path: Path) -> None:
    runs(methods={"m": MEDIAN})
    run = runs(methods={"m": {**MEDIAN, "baseline": "nlm"}}, resume=True)
    assert "delete this one to compute them again" in (run.cells[0].error or "")
    shutil.rmtree(tmp_path / "run" / "restored" / "photos" / "m")
    assert runs(methods={"m": {**MEDIAN, "baseline": "nlm"}}, resume=True).cells[0].n == 4


def test_nothing_can_be_measured(runs: Runs, photos: Path, tmp_path: Path) -> None:
    data_set = {
        "hq": str(photos),
        "lq": {"kind": "recipe", "recipe": "light"},
        "metrics": ["dists", "lpips-vgg"],
    }
    gone = {"kind": "folder", "folder": str(tmp_path / "gone")}
    run = runs(data_sets={"photos": data_set}, methods={"input": INPUT, "gone": gone})
    why = {(cell.method, cell.metric): cell.error or "" for cell in run.cells}
    assert "`hbr fetch vgg16` gets them" in why["input", "dists"]
    assert why["input", "lpips-vgg"].startswith("lpips-vgg needs the weights")
    assert "gone" in why["gone", "dists"]
    assert sum("dists needs" in line for line in run.warnings) == 1


def test_some_pictures_are_no_table(runs: Runs) -> None:
    run = runs()
    columns = {"PERSONA-Val": ("psnr-y", "gmsd")}
    data_set = dataclasses.replace(run.data_sets[0], name="PERSONA-Val", comparable=True)
    run = dataclasses.replace(
        run,
        layout=TableLayout(columns=columns),
        data_sets=(data_set,),
        methods=(MethodInfo(name="SeeSR"),),
        cells=(
            Cell(
                method="SeeSR", data_set="PERSONA-Val", metric="psnr-y", mean=21.31, n=3, failed=1
            ),
            Cell(method="SeeSR", data_set="PERSONA-Val", metric="gmsd", mean=0.1, n=4),
        ),
    )
    found = compare(run, "osdhuman.table2_methods")
    assert [cell.verdict for cell in found.cells[:2]] == [
        "not comparable: 1 of 4 pictures failed",
        "no paper value",
    ]
    assert compare(found, "").cells == run.cells
    with pytest.raises(ConfigError, match="no table of a paper is called 'x'"):
        compare(run, "x")


def test_lq_without_hq(runs: Runs, photos: Path, lq: Path) -> None:
    (lq / "p0.png").unlink()
    (photos / "p3.png").unlink()
    source = {"kind": "folder", "folder": str(lq)}
    own = {"lq": source, "hq": str(photos), "metrics": ["psnr"]}
    run = runs(data_sets={"set": own})
    assert {row.stem: row.error for row in run.rows if row.error} == {
        "p0": "p0: HQ has no matching LQ",
        "p3": "p3: LQ has no matching HQ",
    }
    assert (run.cells[0].n, run.cells[0].failed) == (2, 2)
    alone = runs(
        "alone", data_sets={"set": {"lq": source, "metrics": ["niqe"]}}, methods={"m": INPUT}
    )
    assert len(alone.rows) == 3


def test_a_data_set_that_is_not_there_costs_only_itself(runs: Runs, photos: Path) -> None:
    good = {"hq": str(photos), "lq": {"kind": "recipe", "recipe": "light"}, "metrics": ["psnr"]}
    bad = {**good, "hq": str(photos / "none")}
    run = runs(data_sets={"bad": bad, "good": good})
    assert [data_set.name for data_set in run.data_sets] == ["good"]
    assert any(line.startswith("bad is left out: ") for line in run.warnings)
    with pytest.raises(ConfigError, match="does not exist"):
        runs("other", data_sets={"bad": bad})
    with pytest.raises(ConfigError, match="recipe is 'x'"):
        runs("third", data_sets={"bad": {**good, "lq": {"kind": "recipe", "recipe": "x"}}})
