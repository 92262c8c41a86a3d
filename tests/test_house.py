"""What holds for the project as a whole: light imports, configs that load, rules that bite."""

import ast
import doctest
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import hbr
from hbr.config import load_yaml

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "hbr"
CONFIGS = sorted((SOURCE / "recipes").rglob("*.yaml"))

# To be raised by hand with every recipe that is added, so that none goes missing unseen.
N_CONFIGS = 55

HEAVY = ("torch", "diffusers", "transformers", "peft", "cv2", "PIL", "numpy")


def run(*command: str | Path, cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "statement",
    [
        "import hbr",
        "import hbr; dir(hbr)",
        "import hbr.apps.cli.main",
        "import hbr.config",
        "import hbr.errors",
    ],
)
def test_import_is_light(statement: str) -> None:
    code = f"{statement}; import sys; print(*set({HEAVY}) & set(sys.modules))"
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_idle_threads_sleep_unless_the_user_says_otherwise(given: str | None) -> None:
    code = "import hbr, os, sys; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"OMP_WAIT_POLICY": given} if given else {}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == [given or "PASSIVE", "False"], done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["restore", "--help"]])
def test_help_is_light(arguments: list[str]) -> None:
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print(*set({HEAVY}) & set(sys.modules), file=sys.stderr))\n"
        "from hbr.apps.cli.main import main\n"
        f"sys.argv[1:] = {arguments}\n"
        "main()\n"
    )
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert done.stdout


def test_public_names_resolve() -> None:
    for name in hbr.__all__:
        assert getattr(hbr, name) is not None
    assert set(dir(hbr)) == set(hbr.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        hbr.no_such_name  # noqa: B018


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))
def test_config_loads(path: Path) -> None:
    if path.parent.name == "curation":
        from hbr.curation.config import CurationConfig

        assert load_yaml(CurationConfig, path).name == path.stem
        return
    from hbr.training.config import TrainConfig

    assert load_yaml(TrainConfig, path).steps > 0


def test_number_of_configs() -> None:
    assert len(CONFIGS) == N_CONFIGS, "count the recipes under src/hbr/recipes/ in N_CONFIGS"


def test_architecture_maps_every_file() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = text.split("## The tree")[1].split("```")[1]
    files = {p.name for p in SOURCE.rglob("*.py")} - {"__init__.py"}
    named = set(re.findall(r"[a-z_]+\.py", tree))
    assert files == named


def test_the_examples_of_the_package_and_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old.jpg", "old-photo.jpg"):
        shutil.copy(ROOT / "tests" / "data" / "purple.jpg", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(hbr)
    assert (done.failed, done.attempted) == (0, 4)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(example, "README.md", "exec"), {})
    assert (tmp_path / "restored.jpg").is_file()


def test_every_page_is_linked_and_no_link_is_broken() -> None:
    pages = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")}
    linked = set()
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if ":" not in link:
                target = (page.parent / link).resolve()
                assert target.exists(), f"{page.name} links to {link}"
                linked.add(target)
    assert pages - linked <= {ROOT / "README.md"}


def test_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[^\]]*)\]", text, flags=re.MULTILINE)
    assert released[0] == hbr.__version__


def tracked_files() -> list[Path]:
    """What git tracks; in a copy without git, what is no build output."""
    listed = run("git", "ls-files", "-z") if shutil.which("git") else None
    if listed is not None and listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        made = {"runs", "demo", "build", "dist", "__pycache__"}
        names = [
            str(p.relative_to(ROOT))
            for p in ROOT.rglob("*")
            if not any(part in made or part.startswith(".") for part in p.relative_to(ROOT).parts)
        ]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


# written so that this file does not hold what it looks for
ELSEWHERE = re.compile(
    r"(?<![\w.~$})>\]-])/(?:home|root|work|Users|opt|mnt|srv)" + "/"
    r"|file:/" + "/"
    r"|\b[A-Z]:\\\\?(?:Users|home)"
    r"|(?:pypi|pythonhosted|anaconda|npmjs|crates)\.(?:org|com|io)"
    r"|download\.pytorch\.org"
)


def test_no_file_names_a_place_on_one_machine_or_a_registry() -> None:
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := ELSEWHERE.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {match.group()}")
    assert not found


@pytest.mark.parametrize(
    "line",
    ["see /home" + "/ann/photos", '"/work' + '/x"', "file:/" + "//wheels", "https://pypi" + ".org"],
)
def test_the_search_for_such_places_finds_them(line: str) -> None:
    assert ELSEWHERE.search(line)


def test_the_search_for_such_places_spares_others() -> None:
    assert not ELSEWHERE.search("https://example.com/home/page ../work/x src/opt/y /dev/full")


# The ground floor may be imported by everyone; each other room says who may import it.
GROUND_FLOOR = {"config", "image", "distributed", "files", "recipes", "weights"}


def test_every_room_says_who_may_import_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    told = {module for c in contracts for module in c.get("protected_modules", ())}
    rooms = {p.parent.name for p in SOURCE.glob("*/__init__.py")} - GROUND_FLOOR
    assert {f"hbr.{room}" for room in rooms} <= told


# Imports that DESIGN forbids: who must not import what. `image` is the package of that name, …
FORBIDDEN = [
    ("image", "config"),
    ("config", "image"),
    ("metrics", "models"),
    ("degradation", "metrics"),
    ("degradation", "models"),
    ("degradation", "people"),
    ("models", "people"),
    ("models", "degradation"),
    ("models", "metrics"),
    ("restoration", "degradation"),
    ("restoration", "metrics"),
    ("restoration", "training"),
    ("training", "restoration"),
    ("people", "metrics"),
    ("training", "curation"),
    ("curation", "degradation"),
    ("degradation", "curation"),
    ("restoration", "evaluation"),
    ("evaluation", "training"),
    ("evaluation", "curation"),
    ("training", "apps"),
    ("models", "apps"),
]
ALLOWED = [
    ("metrics", "image"),
    ("degradation", "people.types"),
    ("models", "people.types"),
    ("models", "config"),
    ("training", "degradation"),
    ("training", "metrics"),
    ("training", "models"),
    ("restoration", "models"),
    ("restoration", "people"),
    ("curation", "people"),
    ("curation", "metrics"),
    ("evaluation", "restoration"),
    ("evaluation", "degradation"),
    ("evaluation", "metrics"),
    ("apps", "training"),
]


def lint_imports_with(planted: list[tuple[str, str]], folder: Path) -> str:
    """What lint-imports says of a copy of the source with these imports in it."""
    copy = folder / "hbr"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    for importer, imported in planted:
        home = copy / importer if (copy / importer).is_dir() else copy / f"{importer}.py"
        file = home / f"planted_{imported.replace('.', '_')}.py" if home.is_dir() else home
        with file.open("a") as out:
            out.write(f"\nimport hbr.{imported}\n")
    shutil.copy(ROOT / "pyproject.toml", folder)
    code = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    # the folder it runs in comes first on its path, before the installed package
    done = run(sys.executable, "-c", code, "--no-cache", "--no-logo", cwd=folder)
    assert done.returncode == (1 if set(planted) & set(FORBIDDEN) else 0), done.stdout + done.stderr
    return " ".join(done.stdout.split())


def test_the_import_rules_hold_what_is_allowed(tmp_path: Path) -> None:
    assert "0 broken" in lint_imports_with(ALLOWED, tmp_path)


@pytest.fixture(scope="module")
def what_breaks(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What lint-imports says of a copy of the source with every forbidden import in it."""
    return lint_imports_with(FORBIDDEN, tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize("broken", FORBIDDEN, ids=" imports ".join)
def test_the_import_rules_break_on_what_is_forbidden(
    broken: tuple[str, str], what_breaks: str
) -> None:
    importer, imported = broken
    planted = f"{importer}.planted_{imported}" if (SOURCE / importer).is_dir() else importer
    assert f"hbr.{planted} -> hbr.{imported} " in what_breaks


def import_cycles(folder: Path) -> set[str]:
    """Each set of modules of the package `hbr` in `folder` that reach each other by imports.

    Imports within functions and for type checkers count too.
    """
    code = (
        "import json, grimp\n"
        "graph = grimp.build_graph('hbr', cache_dir=None)\n"
        "above, below = graph.find_upstream_modules, graph.find_downstream_modules\n"
        "cycles = {m: sorted(above(m) & below(m)) for m in graph.modules}\n"
        "print(json.dumps([[m, *cycle] for m, cycle in cycles.items() if cycle]))\n"
    )
    done = run(sys.executable, "-c", code, cwd=folder)
    assert done.returncode == 0, done.stderr
    return {" ".join(sorted(cycle)) for cycle in json.loads(done.stdout)}


def test_no_module_imports_itself_through_others() -> None:
    assert import_cycles(SOURCE.parent) == set()


@pytest.mark.parametrize("where", ["", "if TYPE_CHECKING:\n    ", "def f() -> None:\n    "])
def test_the_search_for_cycles_finds_them(where: str, tmp_path: Path) -> None:
    for name, imported in (("a", "hbr.b"), ("b", "hbr.c"), ("c", "hbr.a"), ("d", "hbr.c")):
        file = tmp_path / "hbr" / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        line = f"import {imported}\n"
        file.write_text(f"from typing import TYPE_CHECKING\n{where if name == 'a' else ''}{line}")
    (tmp_path / "hbr" / "__init__.py").touch()
    assert import_cycles(tmp_path) == {"hbr.a hbr.b hbr.c"}


def test_a_public_name_stands_for_one_thing() -> None:
    """Type names (`Name = …` too) are defined once; those that begin with _ are of their module."""
    homes: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            named = [node.name] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.Assign) and "TypeVar(" not in ast.unparse(node.value):
                named = [target.id for target in node.targets if isinstance(target, ast.Name)]
            for name in named:
                if re.fullmatch(r"[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*", name):
                    homes.setdefault(name, set()).add(str(path))
    assert {name for name, files in homes.items() if len(files) > 1} == set()


# Dataclasses of more than four fields that are built by position, and why.
BY_POSITION = {
    "Box": "its first four fields are the edges, in the order of every list of boxes",
    "MetricInfo": "a row of the table of metrics, whose first fields are its columns",
}


def test_large_dataclasses_take_their_fields_by_name() -> None:
    by_position = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = [f for f in node.body if isinstance(f, ast.AnnAssign)]
                fields = [f for f in fields if "ClassVar" not in ast.unparse(f.annotation)]
                decorators = [ast.unparse(d) for d in node.decorator_list]
                made = [d for d in decorators if re.fullmatch(r"(\w+\.)?dataclass(\(.*\))?", d)]
                if len(fields) > 4 and made and "kw_only=True" not in made[0]:
                    by_position.add(node.name)
    assert by_position == set(BY_POSITION)


def test_no_file_and_no_function_is_long() -> None:
    """400 lines of a file; 60 of a function, its docstring counted and its signature not."""
    long = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if len(text.splitlines()) > 400:
            long.append(f"{path.relative_to(SOURCE)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.body[0].lineno + 1
                if lines > 60:
                    long.append(f"{path.relative_to(SOURCE)}: {node.name} has {lines} lines")
    assert not long


def test_wheel_holds_what_it_needs(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    done = run(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("hbr-*.whl")
    assert wheel.name.startswith(f"hbr-{hbr.__version__}-")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    needed = (
        "py.typed",
        "page.html",
        "style.css",
        "slider.css",
        "restoration/report/report.html",
        "weights/catalogue.yaml",
        "curation/sources/labels.yaml",
        "evaluation/paper_tables.json",
        "evaluation/more_paper_tables.json",
        "evaluation/benchmarks/nano.yaml",
        "evaluation/methods/programs.yaml",
        "recipes/osdhuman/persona.yaml",
        "weights/nano.safetensors",
    )
    for name in needed:
        assert f"hbr/{name}" in sizes
    assert sizes["hbr/weights/nano.safetensors"] <= 40_000_000
    assert any(name.endswith("/licenses/LICENSE") for name in sizes)
    python = {f"hbr/{p.relative_to(SOURCE).as_posix()}" for p in SOURCE.rglob("*.py")}
    assert python <= set(sizes)


def pins(name: str) -> set[str]:
    """The packages that this file of constraints pins, each to one version."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    return {re.sub("[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}


def test_optional_packages_pin_nothing_anew() -> None:
    assert not pins("constraints.txt") & pins("constraints-extras.txt")


def test_constraints_are_exact_and_name_no_place() -> None:
    pinned = pins("constraints.txt")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for need in [*project["dependencies"], *extras["dev"], *extras["train"]]:
        name = re.split("[^A-Za-z0-9._-]", need)[0]
        assert re.sub("[-_.]+", "-", name).lower() in pinned, f"{name} has no pin"


def test_no_two_test_files_share_a_name() -> None:
    """They are imported by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
