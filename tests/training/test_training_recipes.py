"""Every training recipe, from its YAML to a restored picture, at toy size.

What makes a recipe is left as it is: objective, losses, kind of prompt, what it starts from, what
it freezes. Of full-size models the widths become those of the goldens, published files become toy
ones of the same layout, the photos become a few; nano is a toy already.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from toy_training import DATA

import toy_diffbody
import toy_models
import toy_tagger
import toy_weights
from curated_set import curated_set
from hbr.config import load_yaml, to_dict
from hbr.models.checkpoint import save_checkpoint
from hbr.models.config import RestorerConfig
from hbr.models.files import read_header
from hbr.models.importing.base import load_diffusers_base
from hbr.models.kinds import build_model
from hbr.models.protocol import Sampling
from hbr.models.rrdbnet import RRDBNet
from hbr.training.config import InitConfig, TrainConfig
from hbr.weights import find_model

ROOT = Path(__file__).parents[2]
RECIPE_FOLDER = ROOT / "src/hbr/recipes"
RECIPES = sorted(p for p in RECIPE_FOLDER.rglob("*.yaml") if p.parent.name != "curation")
PAPER = RECIPE_FOLDER / "osdhuman/persona.yaml"
# They differ from others in numbers, photos, or what is left out, or run code that other tests run
# as trainings (a teacher: test_teacher.py, prompts from HQ: test_start.py).
NIGHTLY = {
    "diffbody-no-structure",
    "diffbody-no-text",
    "diffbody-stage2",
    "distill-sd21-half",
    "nano-ablation-hfie-hq",
    "nano-ablation-hfie-lq",
    "nano-ablation-no-vsd",
    "nano-ablation-null",
    "nano-distilled",
    *(f"nano-faithful-{i}" for i in range(1, 15)),
    *(f"nano-sharp-{i}" for i in range(1, 10)),
    "nano-one-step",
    "nano-restorer",
    "osdhuman-lsdir",
    "osdhuman-prompt-dape-hq",
    "osdhuman-prompt-hfie-hq",
    "osdhuman-prompt-hfie-lq",
}
EDGE = 64
# The ends of shipped editions, which trainings start from, and the recipe that has their model.
EDITIONS = {
    "runs/nano-6": "nano/faithful-6",
    "runs/nano-7": "nano/faithful-8",
    "runs/nano-8": "nano/faithful-11",
    "runs/nano-9": "nano/faithful-12",
}
TEACHER = toy_models.RRDBNET
HALF = {"block_out_channels": [4, 4, 8, 8], "layers_per_block": 1, "norm_num_groups": 4}
SWINIR = {"embed_dim": 8, "depths": [2], "num_heads": [2], "width": 8, "native_size": EDGE}


def name_of(recipe: Path) -> str:
    return "-".join(recipe.relative_to(RECIPE_FOLDER).with_suffix("").parts)


def test_the_nightly_recipes_are_recipes() -> None:
    assert {*map(name_of, RECIPES)} > NIGHTLY


def test_what_goes_on_from_the_package_has_its_model(tmp_path) -> None:
    page = (ROOT / "docs/nano.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"\*\*To train on.*?```yaml\n(.*?)```", page, flags=re.DOTALL)
    names = re.findall(r"base: (nano/[a-z]+-\d+)", snippet)
    script = (ROOT / "benchmarks/gpu.sh").read_text(encoding="utf-8")
    names += re.findall(r"nano/(?:faithful|sharp)-\d+", script)
    assert len(names) == 4
    shipped = read_header(find_model("nano")).config
    for name in names:
        assert load_yaml(TrainConfig, RECIPE_FOLDER / f"{name}.yaml").model == shipped, name
    (tmp_path / "mine.yaml").write_text(snippet)
    assert load_yaml(TrainConfig, tmp_path / "mine.yaml").init == InitConfig(
        base=Path("nano"), fidelity=0.0
    )


class Toys:
    """The toy runs of recipes; a recipe that starts from another's model has that one run first."""

    def __init__(self, folder: Path, shared: Path) -> None:
        self.folder, self.shared = folder, shared
        goldens = shared / "goldens"
        self.base = goldens / "osediff/base"
        ram = toy_tagger.write_ram(folder / "ram", goldens)
        self.places = {
            "data/persona": curated_set(shared, folder / "persona"),
            "data/diffbody": curated_set(shared, folder / "diffbody"),
            "data/lsdir": shared / "photos/clothing-co-parsing/val",
            "sd-2.1-base": self.base,
            "ram-swin-l": ram,
            "dape": toy_tagger.write_dape(folder / "DAPE.pth"),
            "realesrgan-x4plus": save_checkpoint(
                folder / "teacher.safetensors", TEACHER, RRDBNet(TEACHER).state_dict()
            ),
        }
        self.vgg = toy_weights.write(folder / "weights") / "vgg16.tv_in1k.safetensors"
        self.outs = {to_dict(load_yaml(TrainConfig, p))["out"]: p for p in RECIPES}
        self.made: dict[Path, Path] = {}

    def config(self, recipe: Path) -> Path:
        """The toy of a recipe, as a YAML file."""
        values = to_dict(load_yaml(TrainConfig, recipe))
        match values["model"].get("kind"):
            case "swinir":
                values["model"] |= SWINIR
            case "diffbody":
                if values["model"]["text"] is not None:  # nano's has no words, and is a toy already
                    names = ("conditions", "name", "kind", "stage1")
                    changes = {n: values["model"][n] for n in names}
                    values["model"] = {**toy_diffbody.toy_values(self.base), **changes}
                values["model"]["stage1"] |= SWINIR
                self._conditions(values["data"]["conditions"])
            case _ if values["model"]["unet"] == to_dict(RestorerConfig())["unet"]:
                self._shrink(values["model"])
        self._replace(values)
        for phase in values["phases"]:
            phase |= {"steps": 1, "crop": EDGE, "batch": 2}
            self._give_weights(phase["loss"])
        self._give_weights(values["loss"])
        values["optim"] |= {"warmup": 0, "decay": 0, "accumulate": 1}
        values["data"]["workers"] = 0
        values["validation"] |= {"count": 1, "crop": EDGE, "every": 100}
        values["out"] = str(self.folder / name_of(recipe))
        file = self.folder / f"{name_of(recipe)}.yaml"
        file.write_text(yaml.safe_dump(values))
        return file

    def _conditions(self, conditions: dict[str, Any]) -> None:
        """Annotated people, as the detectors are not here; and captions of the toy photos."""
        captions = self.folder / "captions.jsonl"
        captions.write_text('{"photo": "purple.jpg", "text": "shoes, a woman"}\n')
        conditions |= {"source": "people", "cache": None}
        if conditions["captions"] is not None:
            conditions["captions"] = str(captions)

    def _shrink(self, model: dict[str, Any]) -> None:
        base, decoder = load_diffusers_base(self.base), model["autoencoder"]["decoder"]
        model |= {"autoencoder": to_dict(base.autoencoder), "unet": to_dict(base.unet)}
        model["native_size"] = EDGE
        if decoder is not None:
            model["autoencoder"]["decoder"] = {**decoder, **HALF}
        prompt = model["prompt"]
        match prompt["kind"]:
            case "hfie":
                prompt |= {"width": 64, "heads": 2, "encoder": toy_tagger.ENCODER}
            case "text":
                prompt |= {"width": 64}
            case "dape":
                prompt |= {"text": toy_tagger.TEXT, "tagger": toy_tagger.TAGGER}

    def _replace(self, values: Any) -> None:
        """Put toy files in the places of published ones, wherever they are named."""
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            if isinstance(value, (dict, list)):
                self._replace(value)
            elif isinstance(value, str) and key != "kind" and value in self.places:
                values[key] = str(self.places[value])
            elif isinstance(value, str) and str(Path(value).parent) in EDITIONS:
                values[key] = str(self._edition(Path(value)))
            elif isinstance(value, str) and str(Path(value).parent) in self.outs:
                values[key] = str(self.model(self.outs[str(Path(value).parent)]))  # it trains this

    def _edition(self, name: Path) -> Path:
        """A file of the shape of a shipped edition's, with random weights."""
        file = self.folder / name
        if not file.exists():
            recipe = RECIPE_FOLDER / f"{EDITIONS[str(name.parent)]}.yaml"
            config = load_yaml(TrainConfig, recipe).model
            file.parent.mkdir(parents=True, exist_ok=True)
            save_checkpoint(file, config, build_model(config).state_dict())
        return file

    def _give_weights(self, loss: dict[str, Any] | None) -> None:
        if loss is not None:
            loss |= {"lpips_weights": str(self.vgg), "dists_weights": str(self.vgg)}

    def model(self, recipe: Path) -> Path:
        """The model file that the toy of a recipe trains."""
        from hbr.training.loop import Trainer

        if recipe not in self.made:
            config = load_yaml(TrainConfig, self.config(recipe))
            self.made[recipe] = Trainer(config, report=lambda line: None).run()
        return self.made[recipe]


@pytest.fixture(scope="module")
def toys(shared, tmp_path_factory):
    return Toys(tmp_path_factory.mktemp("toys"), shared)


@pytest.fixture
def photo(tmp_path):
    with Image.open(DATA / "tie.png") as image:
        image.crop((32, 32, 32 + EDGE, 32 + EDGE)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def is_restored(picture: Path, photo: Path) -> bool:
    """Whether a picture opens, has the size of the photo, and is not the photo."""
    with Image.open(picture) as restored, Image.open(photo) as before:
        a, b = (np.asarray(image.convert("RGB"), dtype=float) for image in (restored, before))
    return a.shape == b.shape and float(np.abs(a - b).mean()) > 0.1


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param(p, marks=pytest.mark.slow if name_of(p) in NIGHTLY else (), id=name_of(p))
        for p in RECIPES
        if p != PAPER
    ],
)
def test_a_recipe_comes_to_a_restored_picture(recipe, toys, photo, monkeypatch):
    from hbr.restoration import Restorer

    monkeypatch.chdir(ROOT)
    out = photo.with_name("restored.png")
    restorer = Restorer.from_pretrained(toys.model(recipe))
    few = {"sampling": Sampling(steps=2)} if restorer.capabilities.samples else {}
    restorer(photo, **few).save(out)
    assert is_restored(out, photo)


def test_the_recipe_of_the_paper_by_the_real_commands(toys, photo, call_hbr):
    config, out = toys.config(PAPER), photo.with_name("restored.png")
    done = call_hbr("train", config, "--out", photo.with_name("run"), "--device", "cpu", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    model = Path(done.stdout.strip())
    assert model == photo.with_name("run") / "model.safetensors"
    done = call_hbr("restore", "-i", photo, "-o", out, "--model", model, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert is_restored(out, photo)


def test_the_recipes_of_the_page_on_training_load(tmp_path):
    page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "mine.yaml").write_text(block)
        assert load_yaml(TrainConfig, tmp_path / "mine.yaml").steps > 0
    recipes = {f"{p.parent.name}/{p.stem}" for p in RECIPES if p.parent.name != "nano"}
    named = set(
        re.findall(r"^\| `((?:os[a-z]+|diffbody|distill)/[a-z0-9-]+)`", page, flags=re.MULTILINE)
    )
    assert named | {"osdhuman/prompt-hfie-lq"} == recipes
