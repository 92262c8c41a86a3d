"""`hbr methods`: the table, the card of a program, a run, and what goes wrong."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from curated_set import curated_set

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Write = Callable[..., Path]
ROOT = Path(__file__).parents[2]

COPY = """
import shutil, sys
from pathlib import Path
for path in Path(sys.argv[1]).iterdir():
    shutil.copy(path, Path(sys.argv[2]) / f"{path.stem}_out.png")
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """The method file of a program that copies, with its own YAML beside."""
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "copy.py").write_text(COPY)
    program = {
        "name": "Copy",
        "command": ["{python}", "{script}", "{input}", "{output}"],
        "values": {"script": "copy.py"},
        "needs": ["{script}"],
        "outputs": ["output/{name}_out.png"],
        "factor": 1,
        "install": "write it",
    }
    (tmp_path / "copy.yaml").write_text(yaml.safe_dump(program))
    settings = {"kind": "program", "program": "copy.yaml", "python": sys.executable}
    method = {"method": {**settings, "repo": "clone"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(method))
    return tmp_path


def test_list(call_hbr: Run) -> None:
    done = call_hbr("methods", "list")
    assert done.returncode == 0
    head, *rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert head == ["id", "kind", "summary", "upscale", "licence"]
    assert [row[1] for row in rows[:5]] == ["hbr", "spandrel", "folder", "baseline", "program"]
    licences = {row[0]: row[4] for row in rows if row[0]}
    assert licences["supir"].startswith("non-commercial")
    told = json.loads(call_hbr("methods", "list", "--json").stdout)
    assert [entry["id"] for entry in told] == list(licences)


def test_show(call_hbr: Run, mine: Path) -> None:
    done = call_hbr("methods", "show", "seesr")
    assert done.returncode == 0
    lines = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    assert lines["licence"].startswith("Apache-2.0")
    assert lines["command"].startswith("PYTHON test_seesr.py --pretrained_model_path preset/")
    assert lines["results"] == "output/sample00/{name}.png"
    example = done.stdout.split("example of a method file:")[1]
    assert yaml.safe_load(example)["method"]["program"] == "seesr"

    for file in ("copy.yaml", "run.yaml"):
        done = call_hbr("methods", "show", file, cwd=mine)
        python = "PYTHON" if file == "copy.yaml" else sys.executable
        assert f"command: {python} copy.py INPUT OUTPUT\n" in done.stdout
    told = json.loads(call_hbr("methods", "show", "copy.yaml", "--json", cwd=mine).stdout)
    assert (told["shown"], told["factor"]) == ("PYTHON copy.py INPUT OUTPUT", 1)


@pytest.mark.parametrize("name", ["diffbir", "osediff", "swinir"])
def test_the_example_is_a_method(call_hbr: Run, tmp_path: Path, name: str) -> None:
    from hbr.evaluation.methods import build_method, read_method
    from hbr.evaluation.methods.config import ProgramConfig

    shown = call_hbr("methods", "show", name).stdout.split("example of a method file:")[1]
    (tmp_path / "run.yaml").write_text(shown)
    config = read_method(tmp_path / "run.yaml")
    assert isinstance(config, ProgramConfig)
    build_method(config)


def test_run(call_hbr: Run, photo: Write, mine: Path) -> None:
    for number, name in enumerate(["a.png", "b.jpg"]):
        photo(mine / "lq" / name, number)
    command = ("methods", "run", "run.yaml", "-i", "lq", "-o", "out")
    done = call_hbr(*command, cwd=mine)
    assert (done.returncode, done.stdout) == (0, "out/a.png\nout/b.png\n")
    assert "hbr: 2 of 2 made: the program ended with exit code 0" in done.stderr
    assert done.stderr.endswith("hbr: 2 of 2 restored\n")
    for name in ("a.png", "b.jpg"):
        made = np.asarray(Image.open(mine / "out" / f"{name[0]}.png"))
        assert np.array_equal(made, np.asarray(Image.open(mine / "lq" / name)))

    again = call_hbr(*command, cwd=mine)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert again.stderr == "hbr: 2 of 2 restored\n"
    assert "2 of 2 made" in call_hbr(*command, "--anew", cwd=mine).stderr

    (mine / "lq" / "c.png").write_bytes(b"")
    some = call_hbr(*command, cwd=mine)
    assert some.returncode == 3
    assert "hbr: c: lq/c.png: is empty" in some.stderr


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"kind": None}, 2, "run.yaml: method.kind is missing; it may be one of 'hbr', 'spandrel'"),
        ({"kind": "magic"}, 2, "method.kind is 'magic'; it must be one of 'hbr', 'spandrel'"),
        ({"program": "gone.yaml"}, 2, "gone.yaml: No such file or directory"),
        ({"program": "gone"}, 1, "no program is called 'gone'; known: diffbir"),
        ({"python": "gone"}, 1, "python is 'gone', which is not there"),
        ({"repo": "gone"}, 1, "repo is 'gone', which is not a folder; write it"),
        ({"values": {"script": "gone.py"}}, 1, "gone.py is missing; write it"),
        ({"values": {"scrip": "gone.py"}}, 2, "must be one of script"),
        ({"upscale": 2.0}, 2, "always enlarges by 1"),
    ],
)
def test_what_is_wrong_is_one_line(
    call_hbr: Run, photo: Write, mine: Path, change: dict[str, object], code: int, says: str
) -> None:
    photo(mine / "lq" / "a.png")
    method = yaml.safe_load((mine / "run.yaml").read_text())
    method["method"] |= change
    method["method"] = {k: v for k, v in method["method"].items() if v is not None}
    (mine / "run.yaml").write_text(yaml.safe_dump(method))
    done = call_hbr("methods", "run", "run.yaml", "-i", "lq", "-o", "out", cwd=mine)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_nothing_is_done(call_hbr: Run, photo: Write, mine: Path) -> None:
    photo(mine / "lq" / "a.png")
    (mine / "clone" / "copy.py").write_text("raise SystemExit('no GPU')")
    done = call_hbr("methods", "run", "run.yaml", "-i", "lq", "-o", "out", cwd=mine)
    assert done.returncode == 1
    assert "hbr: a: no result; the program ended with exit code 1, its last words: no GPU" in (
        done.stderr
    )
    for more in (("-o", "lq"), ("-o", "lq/out", "--recursive")):
        done = call_hbr("methods", "run", "run.yaml", "-i", "lq", *more, cwd=mine)
        assert done.returncode == 2
        assert "among the inputs of the next run" in done.stderr
    assert [p.name for p in (mine / "lq").iterdir()] == ["a.png"]
    (mine / "empty").mkdir()
    assert (
        call_hbr("methods", "run", "run.yaml", "-i", "empty", "-o", "o", cwd=mine).returncode == 1
    )


def test_the_page_of_the_docs_holds(tmp_path: Path) -> None:
    """Its YAML is read, and it names every program."""
    from hbr.config import from_dict, load_yaml
    from hbr.evaluation.benchmark_config import BenchmarkConfig
    from hbr.evaluation.methods import read_method
    from hbr.evaluation.methods.config import ProgramSpec
    from hbr.evaluation.methods.programs import known_programs

    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    peers, *files = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    methods = yaml.safe_load(peers)
    assert set(methods) == {"methods"}
    assert "methods" in BenchmarkConfig.__dataclass_fields__
    for number, plain in enumerate(methods["methods"].values()):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump({"method": plain}))
        read_method(file)
    for number, part in enumerate(files):
        file = tmp_path / f"file{number}.yaml"
        file.write_text(part)
        if "method" in yaml.safe_load(part):
            read_method(file)
        else:
            load_yaml(ProgramSpec, file)
    for spec in known_programs().values():
        assert spec.name.removesuffix("+").removesuffix("-GAN") in text
    assert from_dict(ProgramSpec, {"command": ["{input}", "{output}"], "factor": 1}).factor == 1


def test_retrain_takes_a_folder_or_the_training_split_of_a_curated_set(
    call_hbr: Run, photo: Write, shared: Path, tmp_path: Path
) -> None:
    """The command of the training starts in the repository, with one list of photos."""
    repo = tmp_path / "SinSR"
    (repo / "configs").mkdir(parents=True)
    (repo / "weights").mkdir()
    parameters = {"train": {"params": {"txt_file_path": ["a.txt"]}}, "val": {}}
    config = {"data": parameters, "train": {"iterations": 40, "save_freq": 20}}
    (repo / "configs" / "SinSR.yaml").write_text(yaml.safe_dump(config))
    for name in ("autoencoder_vq_f4.pth", "resshift_realsrx4_s15_v1.pth"):
        (repo / "weights" / name).touch()
    (repo / "main_distill.py").touch()

    def listed(photos: Path, out: str, *more: str) -> list[Path]:
        where = ("--repo", repo, "--python", sys.executable, "-o", tmp_path / out)
        done = call_hbr("methods", "retrain", "sinsr", photos, *where, "--write-only", *more)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"cd {repo} && CUDA_VISIBLE_DEVICES=0,1 {sys.executable} ")
        assert f" main_distill.py --cfg_path {tmp_path / out / 'config.yaml'} " in done.stdout
        return [Path(line) for line in (tmp_path / out / "photos.txt").read_text().splitlines()]

    two = sorted([photo(tmp_path / "hq" / "a.png"), photo(tmp_path / "hq" / "b.jpg")])
    assert listed(tmp_path / "hq", "of-a-folder", "--gpus", "2") == two

    data = curated_set(shared, tmp_path / "curated")
    crops = listed(data, "of-a-set", "--gpus", "2")
    assert sorted(crops) == sorted((data / "crops" / "train").rglob("*.png"))
    assert len(crops) > 2
    shutil.rmtree(data / "crops")
    bad = call_hbr("methods", "retrain", "sinsr", data, "--repo", repo, "-o", tmp_path / "c")
    assert bad.returncode != 0
    assert "its crops lie in tars or tables" in bad.stderr
