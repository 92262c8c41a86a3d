"""`hbr fetch osediff`, `hbr restore --model osediff`: real commands, toy parts served locally."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import toy_packages as toy
from hbr.weights import Entry, KnownFile, Member, PackageFile, entries
from toy_tagger import write_dape, write_ram

Done = subprocess.CompletedProcess[str]

Run = Callable[..., Done]
PROCESS = "import sys, test_fetch_osediff; test_fetch_osediff.run_as_published(sys.argv)"


def as_published(told: dict[str, Any]) -> dict[str, Entry]:
    """The catalogue's entries with every part at the local server: real layout, size and hash.

    The lists come out of a package; DAPE's first address has nothing.
    """
    changed = {}
    for name, files in told["parts"].items():
        made = []
        for path, (size, sha256) in files.items():
            sources: tuple[str | PackageFile, ...] = (f"{told['url']}/{name}/{path}",)
            if name == "dape":
                sources = (f"{told['url']}/none/{path}", *sources)
            if name == "ram-tags":
                member = Member(path=f"toy_tags/{path}", size=size, sha256=sha256)
                sources = (PackageFile(pypi="toy-tags==1.0", members=(member,)),)
            known = {} if name in told["not pinned"] else {"size": size, "sha256": sha256}
            made.append(KnownFile(path=path, sources=sources, **known))
        changed[name] = dataclasses.replace(entries()[name], files=tuple(made))
    size = told["assembled size"]
    changed["osediff"] = dataclasses.replace(entries()["osediff"], assembled_size=size)
    return changed


def run_as_published(arguments: list[str]) -> None:
    """`hbr`, after a JSON file of what is published, in a process of its own."""
    from hbr.apps.cli.main import main

    entries().update(as_published(json.loads(Path(arguments[1]).read_text())))
    sys.argv = ["hbr", *arguments[2:]]
    main()


class Published:
    """The parts, served; what the catalogue says of them can be changed before `fetch`."""

    def __init__(self, index: toy.Index, folder: Path, weights: Path, call: Run) -> None:
        self.index, self.folder, self.weights, self.call = index, folder, weights, call
        self.told = folder / "told.json"
        self.values = {
            "url": index.url,
            "assembled size": 1_000_000,
            "not pinned": ["osediff-lora", "dape"],
            "parts": {},
        }

    def add(self, part: str, folder: Path) -> None:
        """Serve all files of a folder as this part."""
        files = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")}
        if part == "ram-tags":
            self.index.add_wheel("toy-tags", "1.0", {f"toy_tags/{n}": d for n, d in files.items()})
        else:
            shutil.copytree(folder, self.index.folder / part)
        sizes = {n: (len(d), hashlib.sha256(d).hexdigest()) for n, d in files.items()}
        self.values["parts"][part] = sizes

    def hbr(self, *arguments: str | Path) -> Done:
        """In this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, entry in as_published(self.values).items():
                patch.setitem(entries(), name, entry)
            return self.call(*arguments)

    def process(self, *arguments: str | Path) -> Done:
        """In a process of its own."""
        self.told.write_text(json.dumps(self.values))
        command = [sys.executable, "-c", PROCESS, self.told, *arguments]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, env=env
        )

    def files(self) -> set[str]:
        """What lies in the folder of weights, part files included, locks not."""
        found = (p.relative_to(self.weights) for p in self.weights.rglob("*") if p.is_file())
        return {str(p) for p in found if p.suffix != ".lock"}


@pytest.fixture
def published(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, call_hbr: Run
) -> Iterator[Published]:
    monkeypatch.setenv("HBR_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    goldens = shared / "goldens"
    ram = write_ram(tmp_path / "ram", goldens).parent
    for name in ("lora", "dape", "tags"):
        (tmp_path / name).mkdir()
    shutil.copy(goldens / "osediff" / "osediff.pkl", tmp_path / "lora")
    write_dape(tmp_path / "dape" / "DAPE.pth")
    for lists in ram.glob("*.txt"):
        lists.rename(tmp_path / "tags" / lists.name)
    for index in toy.serve_index(tmp_path, monkeypatch):
        made = Published(index, tmp_path, tmp_path / "weights", call_hbr)
        made.add("sd-2.1-base", goldens / "osediff" / "base")
        made.add("osediff-lora", tmp_path / "lora")
        made.add("ram-swin-l", ram)
        made.add("ram-tags", tmp_path / "tags")
        made.add("dape", tmp_path / "dape")
        yield made


def test_one_command_gets_every_part_and_makes_the_model(
    published: Published, photo: Callable[..., Path], tmp_path: Path
) -> None:
    missing = published.hbr("restore", "-i", photo(tmp_path / "a.png"), "-o", tmp_path / "o.png",
                            "--model", "osediff")  # fmt: skip
    assert missing.returncode == 4
    (line,) = missing.stderr.strip().splitlines()
    assert "`hbr fetch osediff` gets sd-2.1-base, osediff-lora, ram-swin-l, ram-tags, dape" in line

    done = published.process("fetch", "osediff")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(published.weights / "osediff")
    lines = done.stderr.splitlines()
    told = [line for line in lines if line.startswith("  missing: ")]
    count = sum(map(len, published.values["parts"].values()))
    assert len(told) == count
    announced = lines.index(next(line for line in lines if line.startswith(f"{count} files to")))
    assert all(lines.index(line) < announced for line in told)  # before the first download
    size = (tmp_path / "ram" / "ram.pth").stat().st_size
    assert f"  missing: ram.pth: {size / 1e6:.1f} MB, http" in done.stderr
    size = (tmp_path / "dape" / "DAPE.pth").stat().st_size  # not pinned: the server says it
    assert f"  missing: DAPE.pth: {size / 1e6:.1f} MB" in done.stderr
    assert "DAPE.pth answers 404" in done.stderr
    assert "next: " + published.index.url in done.stderr
    assert "the package toy-tags==1.0 of PyPI" in done.stderr
    assert "verified" in lines[-1]

    # the same as importing step by step
    from hbr.models.importing import import_weights

    for lists in (tmp_path / "tags").iterdir():
        shutil.copy(lists, tmp_path / "ram")
    tagged, expected = tmp_path / "tagged.safetensors", tmp_path / "expected.safetensors"
    base, goldens = published.index.folder / "sd-2.1-base", tmp_path / "lora" / "osediff.pkl"
    dape = tmp_path / "dape" / "DAPE.pth"
    import_weights(tmp_path / "ram" / "ram.pth", "tagger", tagged, base=base, dape=dape)
    import_weights(goldens, "osediff", expected, base=tagged)
    made, wanted = load_file(published.weights / "osediff/osediff.safetensors"), load_file(expected)
    assert made.keys() == wanted.keys()
    assert all(torch.equal(made[name], wanted[name]) for name in made)

    again = published.hbr("fetch", "osediff")
    assert again.returncode == 0
    assert "osediff.safetensors: already present" in again.stderr

    for part in published.values["parts"]:  # only the model itself is needed
        shutil.rmtree(published.weights / part)
    out = tmp_path / "restored.png"
    run = published.hbr("restore", "-i", tmp_path / "a.png", "-o", out, "--model", "osediff")
    assert run.returncode == 0, run.stderr
    assert Image.open(out).size == (48, 40)
    assert out.read_bytes() != (tmp_path / "a.png").read_bytes()
    assert published.hbr("models", "verify", "osediff").returncode == 0


def test_parts_that_are_here_are_not_fetched_again(published: Published, tmp_path: Path) -> None:
    into = tmp_path / "into"
    shutil.copytree(published.index.folder / "sd-2.1-base", into / "sd-2.1-base")
    shutil.rmtree(published.index.folder / "sd-2.1-base")  # could not be fetched
    done = published.hbr("fetch", "osediff", "--into", into)
    assert done.returncode == 0, done.stderr
    assert f"  {into / 'sd-2.1-base'}: already present" in done.stderr
    assert (into / "osediff.safetensors").is_file()
    assert published.files() == set()


def missing_part(published: Published) -> None:
    shutil.rmtree(published.index.folder / "osediff-lora")


def another_size(published: Published) -> None:
    (published.index.folder / "ram-swin-l" / "ram.pth").write_bytes(b"another file")


def no_space(published: Published) -> None:
    published.values["assembled size"] = 10**18


def damaged_here(published: Published) -> None:
    here = published.weights / "ram-swin-l" / "ram.pth"
    here.parent.mkdir(parents=True)
    here.write_bytes(b"cut")


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (missing_part, "osediff-lora/osediff.pkl answers 404"),
        (another_size, "ram.pth has 12 bytes; it should have"),
        (no_space, "make room, or choose another folder by --into or HBR_WEIGHTS"),
        (damaged_here, "delete it and run the same command again"),
    ],
)
def test_what_can_be_known_before_is_said_before_anything_is_downloaded(
    published: Published, break_it: Callable[[Published], None], told: str
) -> None:
    break_it(published)
    before = published.files()
    done = published.hbr("fetch", "osediff")
    assert done.returncode == 4
    assert done.stdout == ""
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert published.files() == before


def wrong_hash(published: Published) -> None:
    file = published.index.folder / "ram-swin-l" / "ram.pth"
    file.write_bytes(b"x" * file.stat().st_size)


def not_the_package(published: Published) -> None:
    name = next(iter(published.values["parts"]["ram-tags"]))
    published.values["parts"]["ram-tags"][name] = (1, "0" * 64)


def another_model(published: Published) -> None:
    dape = published.index.folder / "dape" / "DAPE.pth"
    torch.save({"conv.weight": torch.ones(1)}, dape)


def not_finite(published: Published) -> None:
    dape = published.index.folder / "dape" / "DAPE.pth"
    tensors = torch.load(dape, weights_only=True)
    tensors["tagging_head.encoder.layer.0.crossattention.self.query.lora_A"][0, 0] = torch.nan
    torch.save(tensors, dape)


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (wrong_hash, "ram.pth gave another file"),
        (not_the_package, "toy-tags==1.0 of PyPI: toy_tags/"),
        pytest.param(another_model, "is not a LoRA of DAPE", marks=pytest.mark.slow),
        (not_finite, "is not finite, so one of its parts is damaged"),
    ],
)
def test_what_comes_out_later_is_one_line_and_leaves_nothing_by_halves(
    published: Published, break_it: Callable[[Published], None], told: str
) -> None:
    break_it(published)
    done = published.hbr("fetch", "osediff")
    assert done.returncode == 4, done.stderr
    assert done.stdout == ""
    assert told in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not any(name.startswith("osediff/") for name in published.files())
    assert not any(".fetching" in name or ".part" in name for name in published.files())


@pytest.mark.slow
def test_a_download_that_is_cut_off_goes_on_with_the_same_command(published: Published) -> None:
    cut = published.index.folder / "ram-swin-l" / "ram.pth.cut"
    cut.touch()
    done = published.hbr("fetch", "osediff")
    assert done.returncode == 4
    assert "what has come is kept, the same command goes on" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert "ram-swin-l/ram.pth" not in published.files()
    assert not any(name.startswith("osediff/") for name in published.files())
    here = {name for name in published.files() if name.startswith(("sd-2.1-base", "osediff-lora"))}
    cut.unlink()
    done = published.hbr("fetch", "osediff")
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if line.startswith("  missing: ")]
    assert len(told) == sum(map(len, published.values["parts"].values())) - len(here)
    assert not any(".fetching" in name or ".part" in name for name in published.files())
