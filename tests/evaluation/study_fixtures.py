"""Folders of photos, and a served study, for the tests of studies."""

import json
import secrets
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from PIL.PngImagePlugin import PngInfo

PHOTO = Path(__file__).parents[1] / "data" / "purple.jpg"
SECRETS = ("sharpnet", "blurnet", "greynet")  # names that no rater may see
METHODS = {"sharpnet": 0.0, "blurnet": 1.0, "greynet": 3.0}
CODE = "abcd-efgh-2345"


def make_folders(folder: Path, stems: int = 4, edge: int = 64) -> dict[str, Path]:
    """One folder of each method, `lq` at half size and `hq`; the names give all away."""
    photo = Image.open(PHOTO).convert("RGB")
    out: dict[str, Path] = {}
    for name, radius in {**METHODS, "lq": 4.0, "hq": 0.0}.items():
        out[name] = folder / name
        out[name].mkdir(parents=True)
        for i in range(stems):
            picture = photo.crop((0, 2 * i, edge, 2 * i + edge))
            picture = picture.filter(ImageFilter.GaussianBlur(radius))
            if name == "lq":
                picture = picture.resize((edge // 2, edge // 2))
            notes = PngInfo()
            notes.add_text("Software", name)
            picture.save(out[name] / f"stem{i}.png", pnginfo=notes)
    return out


@contextmanager
def served(hbr_command: list[str], study: Path, port: int = 0) -> Iterator[tuple[Any, str]]:
    """`hbr study serve` as a process, and its address; killed at the end if it still runs."""
    command = [*hbr_command, "study", "serve", str(study), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def post(url: str, path: str, **body: Any) -> Any:
    """What the server answers to this JSON; (status, JSON) if it refuses."""
    data = json.dumps(body).encode()
    request = urllib.request.Request(
        url + path, data, {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def new_code() -> str:
    """A code for a rater, 60 random bits that are easy to type."""
    letters = [secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(12)]
    return "-".join("".join(letters[i : i + 4]) for i in (0, 4, 8))


def fill(study: Any, raters: int, seed: int = 0) -> None:
    """Raters who prefer the sharper photos, not always."""
    rng = np.random.default_rng(seed)
    truth = {name: 4.0 - radius for name, radius in METHODS.items()}

    for _ in range(raters):
        code = new_code()
        number = study.join(code)
        while (trial := study.place(code).trial) is not None:
            names = methods_of(study, trial.images)
            seen = [truth[name] + rng.normal(0, 0.8) for name in names]
            score = int(np.clip(round(seen[0]), 0, 5))
            value = score if study.config.kind == "scores" else int(seen[1] > seen[0])
            study.answer(code, trial.id, value, 1000 + number)


def methods_of(study: Any, images: tuple[str, ...]) -> list[str]:
    """The methods behind ids."""
    of = {stored.id: stored.method for stored in study._images.values()}
    return [of[image] for image in images]
