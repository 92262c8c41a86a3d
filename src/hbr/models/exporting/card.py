"""Model cards: Markdown with the front matter that model hubs read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from hbr.config import to_dict
from hbr.models.config import RestorerConfig
from hbr.models.files import Header, read_header
from hbr.models.inspection import count_parameters
from hbr.models.protocol import ModelConfig
from hbr.pages import markdown_table
from hbr.weights import entries

# licence names on hubs that are not the lower-case SPDX name
_LICENCES = {"creativeml open rail++-m": "openrail++"}
_KNOWN_LICENCES = re.compile(
    r"apache-2\.0|mit|openrail(\+\+)?|creativeml-openrail-m|cc0-1\.0|cc-by(-nc)?(-sa|-nd)?-[234]\.0"
    r"|bsd-[23]-clause|a?gpl-3\.0|lgpl-3\.0|unlicense"
)
_SHOWN_ELSEWHERE = {"licence", "trained_on", "steps", "source_sha256"}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Results of a model in a benchmark.

    Attributes:
        benchmark: its name and edition.
        command: that reproduces the results.
        metrics: ids, for the front matter.
        heads, rows: the table.
        notes: lines below the table.
    """

    benchmark: str
    command: str
    metrics: tuple[str, ...]
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class About:
    """The content of a card.

    Attributes:
        name: of the model.
        header: of its file.
        licence: as stated by the publisher; empty if it is not stated.
        recipe: the training's configuration as plain values; None if it is unknown.
        base_models, datasets: names on the hub.
        figures: of a benchmark.
    """

    name: str
    header: Header
    licence: str = ""
    recipe: Mapping[str, Any] | None = None
    base_models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    figures: Figures | None = field(default=None)


def about(model: Path) -> About:
    """Collect the content of a card from a model file and the folder of its training, if any.

    Raises:
        WeightsError: it is missing, damaged or of another kind.
    """
    header = read_header(model)
    recipe = None
    try:
        found = json.loads((model.parent / "config.json").read_text(encoding="utf-8"))
        # otherwise it is an unrelated file, or belongs to another model
        if model.name == "model.safetensors" and found["model"] == to_dict(header.config):
            recipe = _without_places(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    licence = header.card.get("licence", "")
    return About(
        name=header.config.name,
        header=header,
        licence=licence,
        recipe=recipe,
        base_models=_known_base(recipe),
    )


def model_card(about: About, *, usage: str) -> str:
    """Markdown with YAML in front."""
    card, config = about.header.card, about.header.config
    family, how = f"model of kind {config.kind}", ""
    if isinstance(config, RestorerConfig):
        family, how = "one-step diffusion model", " in one pass"
    parts = [
        f"---\n{yaml.safe_dump(_front_matter(about), sort_keys=False, allow_unicode=True)}---",
        f"# {about.name}",
        f"A {family} that restores photographs of people: blur, noise, low resolution and JPEG "
        f"damage go in, a clean photograph comes out{how}. What it adds is likely, not certain: "
        "no restored face or text is evidence.",
        usage,
        "## Training",
        _training(about),
    ]
    if about.figures is not None:
        parts += ["## Figures", _figures(about.figures)]
    parts += ["## Sizes", _sizes(config, about.header.shapes)]
    if others := {k: v for k, v in card.items() if k not in _SHOWN_ELSEWHERE}:
        parts += ["## What its file says", markdown_table(("", ""), sorted(others.items()))]
    return "\n\n".join(parts) + "\n"


def usage_with_hbr(place: str) -> str:
    """How to run a model file with hbr; `place` is its name where the card lies."""
    return f"## Use\n\n```bash\nhbr restore -i old-photo.jpg -o restored.jpg --model {place}\n```"


def usage_with_diffusers(config: RestorerConfig) -> str:
    """How to run a one-step model in a few lines with the networks of diffusers."""
    from hbr.models.schedule import alphas_cumprod  # needs torch, which a push does not

    alpha_bar = float(alphas_cumprod(config.schedule)[config.timestep])
    patch = config.autoencoder.patch_size
    functional = "" if patch == 1 else "import torch.nn.functional as F\n"
    into = "x = image * 2 - 1" if patch == 1 else f"x = F.pixel_unshuffle(image * 2 - 1, {patch})"
    back = ("x" if patch == 1 else f"F.pixel_shuffle(x, {patch})") + " / 2 + 0.5"
    prompt = "from hbr.models.part_files import load_prompt"
    load = 'prompt = load_prompt(f"{folder}/prompt.safetensors")'
    if config.refiner is not None:
        prompt += ", load_refiner"
        load += '\nrefiner = load_refiner(f"{folder}/refiner.safetensors")'
        back = f"refiner({back}{', image' if config.refiner.sees_input else ''})"
    return f"""## Use

With hbr: `hbr models import FOLDER -o model.safetensors`, then
`hbr restore --model model.safetensors`. With diffusers, one step from t = {config.timestep}:

```python
import torch
{functional}from diffusers import AutoencoderKL, UNet2DConditionModel

{prompt}

folder = "."
vae = AutoencoderKL.from_pretrained(folder, subfolder="vae")
unet = UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
{load}


@torch.no_grad()
def restore(image):  # [b, 3, H, W] in [0, 1], H and W multiples of {config.multiple_of}
    {into}
    z = vae.encode(x).latent_dist.mode() * {config.autoencoder.scaling_factor}
    epsilon = unet(z, {config.timestep}, prompt(image)).sample
    z = (z - {(1 - alpha_bar) ** 0.5!r} * epsilon) / {alpha_bar**0.5!r}
    x = vae.decode(z / {config.autoencoder.scaling_factor}).sample
    return {back}
```"""


def _known_base(recipe: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The hub's name of the catalogued weights that a training started from."""
    init = (recipe or {}).get("init")
    entry = entries().get(str(init.get("base") if isinstance(init, dict) else init))
    found = re.search(r"Hugging Face hub, ([\w.-]+/[\w.-]+)", entry.source) if entry else None
    return (found[1],) if found else ()


def _front_matter(about: About) -> dict[str, Any]:
    name = about.licence.lower()
    name = _LICENCES.get(name, name)
    values: dict[str, Any] = {"license": name if _KNOWN_LICENCES.fullmatch(name) else "other"}
    if values["license"] == "other":
        values["license_name"] = re.sub(r"[^a-z0-9.+-]+", "-", name).strip("-") or "not-stated"
    values |= {"library_name": "hbr", "pipeline_tag": "image-to-image"}
    one_step = isinstance(about.header.config, RestorerConfig)
    family = ["one-step-diffusion"] if one_step else []
    values["tags"] = ["image-restoration", *family, "people", "hbr"]
    if about.base_models:
        values["base_model"] = list(about.base_models)
    if about.datasets:
        values["datasets"] = list(about.datasets)
    if about.figures is not None:
        values["metrics"] = list(about.figures.metrics)
    return values


def _training(about: About) -> str:
    card = about.header.card
    lines = []
    if "trained_on" in card:
        lines.append(f"Trained on {' '.join(card['trained_on'].split())}.")
    if "steps" in card:
        lines.append(f"{card['steps']} steps.")
    if "base" in card or about.base_models:
        lines.append(f"Built on {', '.join(about.base_models) or card['base']}.")
    if about.recipe is None:
        lines.append("The recipe of its training does not lie beside its file.")
        return " ".join(lines)
    lines.append("The whole recipe is `recipe.yaml` below; `hbr train recipe.yaml` runs it.")
    text = recipe_text(about.recipe)
    return f"{' '.join(lines)}\n\n```yaml\n{text}```"


def recipe_text(recipe: Mapping[str, Any]) -> str:
    """A training's configuration as YAML."""
    return str(yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True, width=100))


def _figures(figures: Figures) -> str:
    notes = [f"{figures.benchmark}; `{figures.command}` measures it again.", *figures.notes]
    return f"{markdown_table(figures.heads, figures.rows)}\n\n{' '.join(notes)}"


def _sizes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> str:
    rows = [(f"weights, {part}", f"{n:,}") for part, n in count_parameters(shapes).items()]
    size = config.capabilities.native_size
    rows.append(("made for", f"{size}×{size} pixels; larger photos by tiles"))
    if isinstance(config, RestorerConfig):
        rows += [
            ("one step from", f"t = {config.timestep} of {config.schedule.steps}"),
            ("prompt", f"{config.prompt.kind}, {config.prompt.n_queries}×{config.prompt.width}"),
        ]
    return markdown_table(("", ""), rows)


def _without_places(value: Any) -> Any:
    """The values with absolute paths reduced to their last part, which is all that is public."""
    if isinstance(value, dict):
        return {key: _without_places(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_without_places(v) for v in value]
    if isinstance(value, str) and Path(value).is_absolute():
        return Path(value).name
    return value
