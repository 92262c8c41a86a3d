"""A benchmark run over real photos, small enough to look at."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from hbr.evaluation.results import (
    BenchmarkRun,
    Cell,
    DataSetInfo,
    Difference,
    MethodInfo,
    PictureRow,
    TableLayout,
)
from hbr.metrics import METRICS

PHOTO = Path(__file__).parents[1] / "data" / "purple.jpg"
METHODS = {"input": 3.0, "nano & <co>": 1.2, "Real-ESRGAN+": 1.8}


def make_run(folder: Path, photos: list[Path] | None = None, stems: int = 6) -> BenchmarkRun:
    """Each method blurs a photo by another radius; PSNR and SSIM are what hbr computes.

    One picture of the last method is missing, one of the first cannot be read.
    """
    from hbr.image import read_photo
    from hbr.metrics import load_metric

    names = ("psnr-rgb", "ssim-rgb")
    metrics = {name: load_metric(name) for name in names}
    rows = []
    for i in range(stems):
        if photos:
            hq = Image.open(photos[i]).convert("RGB")
        else:
            hq = Image.open(PHOTO).convert("RGB").crop((0, 4 * i, 96, 4 * i + 120))
        stem = photos[i].stem if photos else f"photo{i}"
        files = {"hq": hq, "lq": hq.filter(ImageFilter.GaussianBlur(3)).reduce(2)}
        for j, radius in enumerate(METHODS.values()):
            files[f"m{j}"] = hq.filter(ImageFilter.GaussianBlur(radius * (0.6 + i / stems)))
        for name, picture in files.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            picture.save(folder / name / f"{stem}.png")
        reference = read_photo(folder / "hq" / f"{stem}.png").tensor()
        for j, method in enumerate(METHODS):
            common = {"lq": f"lq/{stem}.png", "reference": f"hq/{stem}.png"}
            if i == 2 and j == 2:
                error = "no output: the program wrote 5 of 6 <files>"
                rows.append(
                    PictureRow(method=method, data_set="toy", stem=stem, error=error, **common)
                )
                continue
            image = read_photo(folder / f"m{j}" / f"{stem}.png").tensor()
            values = {n: float(m(image, reference)[0]) for n, m in metrics.items()}
            rows.append(
                PictureRow(
                    method=method,
                    data_set="toy",
                    stem=stem,
                    values=values,
                    restored=f"m{j}/{stem}.png",
                    **common,
                )
            )
    (folder / "m0" / f"{rows[0].stem}.png").write_bytes(b"no picture")
    return _run(folder, names, rows)


def _run(folder: Path, names: tuple[str, ...], rows: list[PictureRow]) -> BenchmarkRun:
    cells = []
    for method in [*METHODS, "SUPIR"]:
        for name in names:
            values = [r.values[name] for r in rows if r.method == method and r.values]
            paper = 24.17 if name == "psnr-rgb" else None
            if not values:
                cells.append(
                    Cell(
                        method=method,
                        data_set="toy",
                        metric=name,
                        mean=None,
                        paper=paper,
                        verdict="not run",
                    )
                )
                continue
            mean = float(np.mean(values))
            off = None if paper is None else mean - paper
            verdict = "no paper value" if off is None else "within" if abs(off) < 3 else "outside"
            failed = sum(r.error is not None for r in rows if r.method == method)
            cells.append(
                Cell(
                    method=method,
                    data_set="toy",
                    metric=name,
                    mean=mean,
                    low=mean * 0.97,
                    high=mean * 1.03,
                    n=len(values),
                    failed=failed,
                    paper=paper,
                    difference=off,
                    tolerance=3.0,
                    verdict=verdict,
                )
            )
    differences = [
        Difference(
            method=m,
            other="input",
            data_set="toy",
            metric="psnr-rgb",
            mean=3.21,
            low=2.5,
            high=3.9,
            n=6,
            better=True,
        )
        for m in list(METHODS)[1:]
    ]
    return BenchmarkRun(
        name="toy",
        title="Toy photos, blurred",
        layout=TableLayout(
            caption="Means over the pictures that came out.",
            columns={"toy": names},
            decimals={"psnr-rgb": 2},
            notes=("PSNR and SSIM on RGB, not on Y as published.",),
        ),
        data_sets=(
            DataSetInfo(
                name="toy",
                n=len({r.stem for r in rows}),
                lq="lq",
                hq="hq",
                edition="blurred here",
                status="made here",
                comparable=False,
                checksum="ab" * 32,
            ),
        ),
        methods=(
            *(
                MethodInfo(
                    name=m,
                    kind="baseline" if m == "input" else "hbr",
                    settings={"blur": r},
                    provenance={"weights": "none"},
                    seconds={"toy": 0.1},
                    restored={"toy": 6},
                )
                for m, r in METHODS.items()
            ),
            MethodInfo(name="SUPIR", run=False),
        ),
        metrics=tuple(METRICS[name] for name in names),
        rows=tuple(rows),
        cells=tuple(cells),
        differences=tuple(differences),
        paper="DiffBody, table 1",
        warnings=("The LQ files are not the published ones.",),
        version="0.1.0",
        commit="0123abc",
        machine={"processor": "a processor", "torch": "2.13"},
        settings={"seed": 0, "resamples": 1000},
        started="2026-11-21T02:00:00+00:00",
        folder=folder,
    )
