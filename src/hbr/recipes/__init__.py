"""The recipes that come with hbr: one YAML file each, for `hbr train` and `hbr curate run`.

A recipe's name is its path in this folder, without the ending: `osdhuman/persona`. The header of
each file gives its command, the hardware and hours that it takes, and its result.
"""

from pathlib import Path

_FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """The names of all recipes, sorted."""
    files = _FOLDER.rglob("*.yaml")
    return sorted(file.relative_to(_FOLDER).with_suffix("").as_posix() for file in files)


def find_recipe(name: str, group: str = "") -> Path | None:
    """The file of a recipe; None if there is none of that name.

    Args:
        name: as `recipe_names` gives it; within `group` the last part is enough.
        group: the folder whose recipes may be named by their last part, such as "curation".
    """
    known = recipe_names()
    for full in (name, f"{group}/{name}"):
        if full in known:
            return _FOLDER / f"{full}.yaml"
    return None
