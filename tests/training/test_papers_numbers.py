"""The recipes of the papers have the papers' numbers, as tests/data/papers.yaml lists them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hbr.config import load_yaml, to_dict
from hbr.curation.config import CurationConfig
from hbr.degradation.named_recipes import RECIPES
from hbr.recipes import find_recipe, recipe_names
from hbr.training.recipe import load_recipe

LISTED: list[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[1] / "data" / "papers.yaml").read_text(encoding="utf-8")
)


def cases() -> Iterator[Any]:
    for entry in LISTED:
        for recipe in entry["recipes"]:
            for key, said in entry["values"].items():
                yield pytest.param(entry["kind"], recipe, key, said, id=f"{recipe} {key}")


def values_of(kind: str, recipe: str) -> Any:
    """The whole configuration, defaults included, as plain values."""
    if kind == "degradation":
        return to_dict(RECIPES[recipe])
    file = find_recipe(recipe)
    assert file is not None, recipe
    return to_dict(load_yaml(CurationConfig, file) if kind == "curation" else load_recipe(file))


def at(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


@pytest.mark.parametrize(("kind", "recipe", "key", "said"), cases())
def test_a_recipe_has_the_number_of_its_source(kind: str, recipe: str, key: str, said: Any) -> None:
    stated = said if isinstance(said, dict) else {"value": said}
    expected = stated["value"]
    if "times" in stated:
        assert stated["why"]
        expected *= stated["times"]
    got = at(values_of(kind, recipe), key)
    if isinstance(expected, str):
        assert got == expected
    else:
        assert got == pytest.approx(expected, rel=1e-3)


def test_every_recipe_of_a_paper_is_listed() -> None:
    """A new recipe of a paper is to be held to its paper, too."""
    listed = {recipe for entry in LISTED for recipe in entry["recipes"]}
    of_papers = {name for name in recipe_names() if name.startswith(("osdhuman/", "osediff/"))}
    assert of_papers <= listed
    assert {"curation/persona", "real-esrgan"} <= listed
    assert all(entry["source"] for entry in LISTED)
