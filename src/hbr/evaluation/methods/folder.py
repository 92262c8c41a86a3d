"""A folder of existing results, and how results are found by name."""

from __future__ import annotations

import fnmatch
import glob
from collections.abc import Mapping
from pathlib import Path

from hbr.errors import display_name
from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.config import ResultsFolderConfig
from hbr.evaluation.methods.method import MethodSteps, one_by_one
from hbr.evaluation.methods.resizing import Pixels, fitted, read_pixels, wanted_size
from hbr.evaluation.methods.result_folder import identity
from hbr.files import sha256
from hbr.image import is_photo_name


def prepare(config: ResultsFolderConfig, out: Path) -> MethodSteps:
    """Results of a folder, checked and written as every method writes them."""
    if not config.folder.is_dir():
        raise MethodError(f"{display_name(config.folder)} is not a folder of results")
    if out.resolve() == config.folder.resolve():
        raise MethodError(
            f"{display_name(out)} already contains the results; give another folder to "
            "write the checked ones to"
        )

    def key(stem: str, path: Path) -> str:
        found = find_result(config.folder, config.outputs, {"stem": stem})
        return f"{sha256(path)} {sha256(found)}"

    def read(stem: str, path: Path) -> Pixels:
        height, width = read_pixels(path).shape[:2]
        wanted = wanted_size((height, width), config.scale)
        made = read_pixels(find_result(config.folder, config.outputs, {"stem": stem}))
        return fitted(made, wanted, wanted, resize=config.resize)

    made_with = {"folder": str(config.folder)}
    restore = one_by_one(lambda: (made_with, lambda made: made), read)
    return MethodSteps(identity=identity(config), restore=restore, key=key)


def find_result(folder: Path, patterns: tuple[str, ...], names: Mapping[str, str]) -> Path:
    """The one photo in `folder` that the first pattern with a hit finds.

    Args:
        folder: where to look.
        patterns: below `folder`, with placeholders for `names`; `*` matches anything, `.*` at the
            end only a suffix, so that `a.*` does not take `a.b.png`.
        names: values of the placeholders.

    Raises:
        FileNotFoundError: none; its strerror says where it was looked for.
        ValueError: more than one.
    """
    escaped = {name: glob.escape(value) for name, value in names.items()}
    for pattern in patterns:
        filled = pattern.format_map(escaped)
        hits = [p for p in folder.glob(filled) if p.is_file() and is_photo_name(p)]
        if filled.endswith(".*"):
            last = Path(filled).name.removesuffix(".*")
            hits = [p for p in hits if fnmatch.fnmatchcase(p.stem, last)]
        if len(hits) > 1:
            shown = ", ".join(sorted(display_name(p.relative_to(folder)) for p in hits)[:3])
            raise ValueError(f"{len(hits)} files could be the result: {shown}")
        if hits:
            return hits[0]
    tried = ", ".join(pattern.format_map(names) for pattern in patterns)
    raise FileNotFoundError(2, f"no result ({tried} in {display_name(folder)})")
