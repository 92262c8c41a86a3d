"""What the commands of hbr give, as one short digest a result: for comparing two versions of it.

Runs the real commands on photos of `tests/data` and `../shared` and prints a line for each result:
its name and a hash of the bytes, numbers and exit codes that a user gets. Times, and places on this
machine, do not count. Two runs of one version on one machine print the same.

    python benchmarks/same_results.py > before.txt
    python benchmarks/same_results.py --against before.txt   # 1 if something differs, and its name

It runs the `hbr` beside this Python; PYTHONPATH=TREE/src runs another version's, whose recipes are
read from TREE. `--keep FOLDER` leaves all results to look at, `--only` runs the named jobs alone.

Usage: python benchmarks/same_results.py [--keep FOLDER] [--against FILE] [--only restore,train]
"""

import argparse
import hashlib
import html
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tifffile
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
COCO = SHARED / "photos/coco-cc"
GOLDENS = SHARED / "goldens"

# What may differ from run to run, wherever it stands in JSON: times, and where it ran.
PASSING = {"timings", "seconds", "pace", "started", "commit", "machine", "cost", "hours", "date"}
# Text that people read: its words may become better.
WORDS = {"message", "error", "detail"}

TOY = {
    "name": "toy",
    "native_size": 64,
    "timestep": 199,
    "autoencoder": {
        "block_out_channels": [32],
        "layers_per_block": 1,
        "latent_channels": 8,
        "norm_num_groups": 4,
        "mid_attention": False,
        "patch_size": 4,
    },
    "unet": {
        "block_out_channels": [8, 16],
        "attention": [False, True],
        "attention_head_dim": [1, 1],
        "layers_per_block": 1,
        "cross_attention_dim": 16,
        "norm_num_groups": 4,
    },
    "prompt": {
        "kind": "hfie",
        "n_queries": 4,
        "width": 16,
        "heads": 2,
        "encoder": {
            "image_size": 32,
            "embed_dim": 8,
            "depths": [1, 1],
            "num_heads": [1, 2],
            "window_size": 4,
            "proj_dim": 16,
        },
    },
}


class Work:
    """A folder where the commands run, and the digests of what they gave."""

    def __init__(self, folder: Path, out: Any) -> None:
        self.folder, self.out = folder, out
        self.digests: dict[str, str] = {}
        self.python = sys.executable
        self.hbr = str(Path(sys.executable).with_name("hbr"))
        self.environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "100",
        }
        place = self._process(self.python, "-c", "import hbr; print(hbr.__file__)")
        self.tree = Path(place.stdout.strip()).resolve().parents[2]

    def run(self, name: str, *arguments: object, cwd: Path | None = None) -> str:
        """Run `hbr`, note its exit code, and return what it wrote to stdout."""
        done = self._process(self.hbr, *map(str, arguments), cwd=cwd)
        self.note(f"{name}: exit code", done.returncode)
        log = self.folder / "logs" / f"{name.replace(' ', '-')}.txt"
        log.parent.mkdir(exist_ok=True)
        log.write_text(done.stdout + "\n--- stderr\n" + done.stderr)
        return done.stdout

    def recipe(self, name: str) -> str:
        """A recipe of hbr: its file where there is one, else its name."""
        file = self.tree / "configs" / f"{name}.yaml"
        return str(file) if file.exists() else name

    def note(self, name: str, value: object) -> None:
        """Print the digest of a result: of bytes as they are, else of JSON without what passes."""
        if not isinstance(value, bytes):
            value = json.dumps(steady(value), sort_keys=True, ensure_ascii=False, default=str)
            for place in (self.folder, self.tree, ROOT):
                value = value.replace(str(place), "…")
            value = value.encode()
        if name in self.digests:
            raise ValueError(f"two results are named {name!r}")
        self.digests[name] = hashlib.sha256(value).hexdigest()[:12]
        print(f"{self.digests[name]}  {name}", file=self.out, flush=True)

    def files(self, name: str, folder: Path, pattern: str = "**/*") -> None:
        """The names and bytes of files: photos, tables, and whatever else is bytes alone."""
        found = {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.glob(pattern))
            if path.is_file() and not any(part.startswith(".") for part in path.parts)
        }
        self.note(name, [found or "no file"])

    def weights(self, name: str, file: Path) -> None:
        """The tensors of a safetensors file, and apart from them what its header says."""
        data = file.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        told = {key: as_json(text) for key, text in header.pop("__metadata__", {}).items()}
        tensors = {}
        for key, entry in header.items():
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            digest = hashlib.sha256(data[start:end]).hexdigest()
            tensors[key] = (entry["dtype"], entry["shape"], digest)
        self.note(f"{name}: tensors", tensors)
        self.note(f"{name}: header", told)

    def _process(
        self, *command: str, cwd: Path | None = None
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=cwd or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )


def steady(value: Any) -> Any:
    """JSON values without what differs from run to run; of words, whether there are any."""
    if isinstance(value, dict):
        return {
            key: bool(entry) if key in WORDS else steady(entry)
            for key, entry in value.items()
            if key not in PASSING
        }
    return [steady(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def as_json(text: str) -> Any:
    """What a text says as JSON, else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def records(text: str) -> list[Any]:
    """The values of JSON lines."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def table(file: Path) -> Any:
    """The columns and rows of a Parquet file."""
    read = pq.read_table(file)
    return read.schema.names, [str(kind) for kind in read.schema.types], read.to_pylist()


def numbers(page: str) -> list[str]:
    """The numbers that a page shows, without its words, style, pictures, and table of CPU times."""
    page = re.sub(r'aria-label="Costs".*?</table>', ">", page, flags=re.DOTALL)
    page = re.sub(r"<(style|script)\b.*?</\1>", " ", page, flags=re.DOTALL)
    text = html.unescape(re.sub(r"<[^>]*>", " ", page))
    return re.findall(r"(?<![\w.-])-?\d+(?:[.,]\d+)*", text)


def write_inputs(folder: Path) -> None:
    """Photos of every kind under `photos`, undamaged ones under `hq`, COCO's under `coco`."""
    hq, photos, coco = (folder / name for name in ("hq", "photos", "coco"))
    for place in (hq, photos, coco / "images"):
        place.mkdir(parents=True)
    for file in sorted((ROOT / "tests/data").glob("*.[jp][pn]g")):
        shutil.copy(file, hq)
    with Image.open(hq / "tie.png") as opened:
        photo = opened.convert("RGB").crop((16, 24, 160, 152))
    photo.save(photos / "rgb.png")
    photo.convert("L").save(photos / "grey.png")
    photo.convert("CMYK").save(photos / "cmyk.jpg", quality=92)
    photo.quantize(64).save(photos / "palette.png")
    photo.save(photos / "webp.webp", lossless=True)
    alpha = Image.linear_gradient("L").resize(photo.size)
    Image.merge("RGBA", (*photo.split(), alpha)).save(photos / "alpha.png")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a tie"
    photo.save(photos / "turned.jpg", quality=90, exif=exif)
    deep = np.asarray(photo).astype(np.uint16) * 257 + 3
    tifffile.imwrite(photos / "deep.tif", deep, photometric="rgb")
    (photos / "broken.jpg").write_bytes((hq / "purple.jpg").read_bytes()[:9000])
    told = json.loads((COCO / "instances.json").read_text())
    told["images"] = told["images"][:60]
    ids = {image["id"] for image in told["images"]}
    told["annotations"] = [a for a in told["annotations"] if a["image_id"] in ids]
    (coco / "instances.json").write_text(json.dumps(told))
    for image in told["images"]:
        shutil.copy(COCO / "images" / image["file_name"], coco / "images")


def restore(work: Work) -> None:
    """Restored bytes and records, of every kind of photo and of nano's settings."""
    for name, arguments in {
        "restore": ("--dtype", "float32"),
        "restore in tiles": ("--scale", "1.5", "--tile", "128", "--color", "adain"),
    }.items():
        out = work.folder / name.replace(" ", "-")
        fixed = ("--device", "cpu", "--log-format", "json", *arguments)
        told = work.run(name, "restore", "-i", "photos", "-o", out.name, *fixed)
        work.note(f"{name}: records", records(told))
        work.files(f"{name}: photos", out)
    code = (
        "import hashlib, hbr\n"
        "restored = hbr.Restorer.from_pretrained('nano', device='cpu')('hq/blue.png')\n"
        "print(hashlib.sha256(restored.pixels.tobytes()).hexdigest())\n"
    )
    done = work._process(work.python, "-c", code)
    work.note("restore from Python", (done.returncode, done.stdout))


def degrade(work: Work) -> None:
    """Degraded bytes and pairs, of every kind of recipe."""
    people = ("--people", "coco/instances.json")
    for recipe, source, *more in (
        ("real-esrgan", "hq", "--seed", "3", "--workers", "2"),
        ("codeformer", "hq", "--strength", "0.5"),
        ("diffbir", "hq", "--keep-small"),
        ("light", "photos"),
        ("motion-blur", "coco/images", *people, "--shard", "0/8"),
    ):
        out = f"degrade-{recipe}"
        pairs = f"{out}.parquet"
        arguments = ("-i", source, "-o", out, "--recipe", recipe, "--pairs-out", pairs, *more)
        work.run(f"degrade {recipe}", "degrade", *arguments)
        work.files(f"degrade {recipe}: photos", work.folder / out)
        work.note(f"degrade {recipe}: pairs", table(work.folder / pairs))


def curate(work: Work) -> None:
    """A curated folder with manifest, report and exports; other sources and outputs."""
    source = ("-i", "coco/instances.json")
    work.run("curate", "curate", "run", *source, "-o", "curated", "--workers", "2")
    _curated(work, "curate", work.folder / "curated")
    work.run("curate report", "curate", "report", "curated", "-o", "curated.html")
    page = (work.folder / "curated.html").read_text(encoding="utf-8")
    work.note("curate report: numbers", numbers(page))
    for kind in ("webdataset", "parquet"):
        out = f"exported-{kind}"
        work.run(f"curate export {kind}", "curate", "export", "curated", "-o", out, "--kind", kind)
        work.files(f"curate export {kind}", work.folder / out, "**/*.[tp]a[r]*")
    shown = work.run("curate thresholds", "curate", "thresholds", "curated", "--count", "20")
    work.note("curate thresholds: numbers", numbers(shown))
    metrics = [{"name": "detail", "threshold": 1.6}, {"name": "noise"}]
    small = {
        "name": "small",
        "sources": [
            {"kind": "voc", "name": "voc", "annotations": "voc/xml", "images": "voc/img"},
            {"kind": "folder", "name": "folder", "path": "hq"},
        ],
        "sharpness": {"threshold": 50},
        "size": {"longer": 96},
        "quality": {"metrics": metrics, "top": 0.8},
        "output": {"kinds": ["folder", "webdataset", "parquet"], "format": "jpeg", "shard": 8},
        "chunk": 5,
    }
    shutil.copytree(SHARED / "annotations/voc", work.folder / "voc")
    (work.folder / "small.yaml").write_text(yaml.safe_dump(small))
    work.run("curate voc", "curate", "run", "small.yaml", "-o", "voc-curated", "--workers", "1")
    _curated(work, "curate voc", work.folder / "voc-curated")


def _curated(work: Work, name: str, folder: Path) -> None:
    work.note(f"{name}: manifest", table(folder / "manifest.parquet"))
    work.note(f"{name}: summary", json.loads((folder / "summary.json").read_text()))
    for kind in sorted(folder.iterdir()):
        if kind.is_dir() and kind.name != "work":
            work.files(f"{name}: {kind.name}", kind)
    shown = work.run(f"{name} status", "curate", "status", folder.name, "--json")
    work.note(f"{name} status: numbers", as_json(shown))


def evaluate(work: Work) -> None:
    """Metrics on pairs and on photos alone, as JSON, CSV and Parquet."""
    work.run("evaluate input", "degrade", "-i", "hq", "-o", "lq", "--seed", "1")
    names = "psnr,ssim,ms-ssim,gmsd,fsim,vifp"
    outputs = ("--json", "e.json", "--csv", "e.csv", "--parquet", "e.parquet")
    pair = ("-r", "lq", "-g", "hq", "--workers", "2")
    shown = work.run("evaluate", "evaluate", *pair, "--metrics", names, *outputs)
    work.note("evaluate: table", shown)
    values = json.loads((work.folder / "e.json").read_text())
    for metric in values["metrics"].values():
        metric.pop("function", None)  # where the code is
    work.note("evaluate: JSON", values)
    work.note("evaluate: CSV", (work.folder / "e.csv").read_bytes())
    work.note("evaluate: Parquet", table(work.folder / "e.parquet"))
    work.run("metrics fit-niqe", "metrics", "fit-niqe", "coco/images", "-o", "niqe/niqe.npz")
    with np.load(work.folder / "niqe/niqe.npz") as fitted:
        model = {key: fitted[key].tobytes().hex() for key in sorted(fitted)}
    work.note("metrics fit-niqe: model", model)
    alone = ("-r", "coco/images", "-m", "niqe", "--weights", "niqe", "--csv", "n.csv")
    work.run("evaluate niqe", "evaluate", *alone, "--workers", "0")
    work.note("evaluate niqe: CSV", (work.folder / "n.csv").read_bytes())


def benchmark(work: Work) -> None:
    """A benchmark's pictures, numbers and tables."""
    out = work.folder / "bench"
    work.run("benchmark", "benchmark", "run", "nano", "-o", "bench", "--data", "photos=hq")
    values = json.loads((out / "run.json").read_text())
    for metric in values["metrics"]:
        metric.pop("function", None)
    work.note("benchmark: run.json", values)
    for file in sorted((out / "report").iterdir()):
        text = file.read_text(encoding="utf-8")
        is_table = file.suffix in (".csv", ".tex")
        work.note(f"benchmark: {file.name}", text.encode() if is_table else numbers(text)[:400])
    work.files("benchmark: photos", out, "**/*.png")
    (work.folder / "median.yaml").write_text("method: {kind: baseline, baseline: median}\n")
    work.run("methods", "methods", "run", "median.yaml", "-i", "hq", "-o", "median")
    work.files("methods: photos", work.folder / "median", "*.png")


def training(out: str, **changes: Any) -> dict[str, Any]:
    """A training of 20 steps on the photos of `hq`."""
    return {
        "model": TOY,
        "data": {"sources": [{"photos": "hq"}], "workers": 0},
        "validation": {"photos": "hq", "count": 2, "crop": 64, "every": 10, "pictures": 1},
        "phases": [
            {"steps": 14, "crop": 32, "batch": 2},
            {"steps": 6, "crop": 64, "batch": 1, "loss": {"l1": 1.0, "psnr": 0.1}},
        ],
        "optim": {"lr": 1e-3, "warmup": 2, "decay": 10, "ema": 0.5},
        "precision": "float32",
        "start": "identity",
        "save_every": 10,
        "out": out,
        **changes,
    }


def train(work: Work) -> None:
    """Weights and curves after 20 steps, from scratch and by adapters; plans of recipes."""
    adapters = {"rank": 2, "alpha": 4.0}
    vsd = {"weight": 1.0, "space": "x0", "guidance": 7.5, "lora": adapters}
    for values in (
        training("toy"),
        training("prior", objective={"kind": "diffusion"}, start="random"),
        training(
            "tuned",
            init="toy/model.safetensors",
            freeze=["prompt"],
            objective={"kind": "restoration", "lora": adapters, "vsd": vsd},
        ),
    ):
        out = work.folder / values["out"]
        (work.folder / f"{out.name}.yaml").write_text(yaml.safe_dump(values))
        work.run(f"train {out.name}", "train", f"{out.name}.yaml", "--device", "cpu")
        for file in sorted(out.glob("*.safetensors")):
            if file.name != "state.safetensors":
                work.weights(f"train {out.name}: {file.name}", file)
        work.note(f"train {out.name}: curves", _curves(out / "curves.jsonl"))
        work.files(f"train {out.name}: pictures", out / "pictures")
    recipe = work.recipe("nano/restorer")
    plan = work.run("plan of nano", "train", recipe, "--plan", "--json", cwd=work.tree)
    work.note("plan of nano: numbers", as_json(plan))


def _curves(file: Path) -> list[dict[str, Any]]:
    passing = ("second", "time", "rate/")
    return [
        {key: value for key, value in line.items() if not any(part in key for part in passing)}
        for line in records(file.read_text())
    ]


def models(work: Work) -> None:
    """Imports, exports, and what a model file is shown as."""
    golden = GOLDENS / "osediff"
    text = ("--prompt", "a person")
    work.run("import base", "models", "import", golden / "base", "-o", "base.safetensors", *text)
    work.weights("import base", work.folder / "base.safetensors")
    work.run("export", "models", "export", "base.safetensors", "-o", "base", "--as", "diffusers")
    for file in sorted((work.folder / "base").rglob("*.safetensors")):
        work.weights(f"export: {file.relative_to(work.folder)}", file)
    lora = ("-o", "lora.safetensors", "--as", "lora")
    work.run("export lora", "models", "export", golden / "osediff.pkl", *lora)
    work.weights("export lora", work.folder / "lora.safetensors")
    merged = ("-o", "merged.safetensors", "--base", "base.safetensors", "--dtype", "bfloat16")
    work.run("import lora", "models", "import", "lora.safetensors", *merged)
    work.weights("import lora", work.folder / "merged.safetensors")
    shown = work.run("show", "models", "show", "merged.safetensors", "--json")
    work.note("show: values", as_json(shown))
    work.run("verify", "models", "verify", "merged.safetensors")
    restored = ("-o", "by-merged.png", "--model", "merged.safetensors", "--dtype", "float32")
    work.run("restore by an import", "restore", "-i", "hq/tie.png", *restored, "--device", "cpu")
    work.note("restore by an import: photo", (work.folder / "by-merged.png").read_bytes())


JOBS: dict[str, Callable[[Work], None]] = {
    job.__name__: job for job in (restore, degrade, curate, evaluate, benchmark, train, models)
}


def differences(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """The results that are not the same, by name."""
    for name in before.keys() | after.keys():
        if before.get(name) != after.get(name):
            yield f"{name}: {before.get(name, 'not there')} → {after.get(name, 'not there')}"


def main() -> int:
    """Run the jobs, print the digests, and compare them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--keep", type=Path, help="folder for all results, empty or new")
    parser.add_argument("--against", type=Path, help="what an earlier run printed")
    parser.add_argument("--only", default=",".join(JOBS), help="jobs, with commas between")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - JOBS.keys():
        parser.error(f"unknown jobs {sorted(unknown)}; there are {', '.join(JOBS)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        work = Work(folder, sys.stdout)
        write_inputs(folder)
        for name in wanted:
            try:
                JOBS[name](work)
            except (OSError, LookupError, ValueError) as error:
                print(f"{name} stopped: {type(error).__name__}: {error}", file=sys.stderr)
    if arguments.against is None:
        return 0
    lines = (line.split("  ", 1) for line in arguments.against.read_text().splitlines())
    before = {name: digest for digest, name in lines}
    if arguments.only != parser.get_default("only"):
        before = {name: digest for name, digest in before.items() if name in work.digests}
    found = sorted(differences(before, work.digests))
    print("\n".join(found) or "all the same", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
