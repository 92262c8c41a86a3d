"""Export of a run's kept crops as files, tars or tables, with manifest and card."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from hbr.config import from_dict
from hbr.curation.config import SplitsConfig
from hbr.curation.manifest import FOLDERS, NAME, Manifest
from hbr.curation.pipeline.passes import ManifestTotals
from hbr.curation.record import CurationError
from hbr.curation.runs.card import card
from hbr.curation.runs.outputs import write_output
from hbr.curation.runs.run_folder import RunFolder
from hbr.curation.runs.summary import split_names, summarize
from hbr.curation.tagging import read_categories
from hbr.files import replacing, write_text

OutputKind = Literal["folder", "webdataset", "parquet"]


def export(
    run: RunFolder,
    out: str | Path,
    kind: OutputKind,
    *,
    shard: int = 1000,
    overwrite: bool = False,
    report: Callable[[int], None] = lambda _: None,
) -> Path:
    """Write the kept crops of a finished run, its manifest and its card into a folder.

    The work folder of the run must still exist. `shard` is the number of crops per tar or Parquet
    file; `overwrite` replaces an earlier export.

    Returns:
        the folder of the crops.

    Raises:
        CurationError: the run has not finished, its crops have been removed, or `out` is the run's
            own folder or already contains an export.
        OSError: the disk is full or not writable; existing files are unchanged.
    """
    out = Path(out)
    manifest = run.finished()
    if run.config is None or run.store is None:
        raise CurationError(f"{run.path} has no work folder, where the crops are taken from")
    if out.resolve() == run.path.resolve():
        raise CurationError(f"{out} is the run's own folder; name another one")
    target = out / FOLDERS[kind]
    there = [p for p in (target, out / NAME, out / "README.md") if p.exists()]
    if there and not overwrite:
        raise CurationError(f"{there[0]} is there already; --overwrite replaces it")
    config = dataclasses.replace(run.config.output, shard=shard)
    write_output(config, kind, manifest, run.store.crops(), out, report)
    with replacing(out / NAME) as part:
        shutil.copyfile(manifest.path, part)
    table = run.config.tag_categories
    categories = read_categories(table) if table else {}
    text = card_of(run.name, manifest, run.config.crop.size, categories)
    write_text(out / "README.md", text)
    return target


def card_of(
    name: str,
    manifest: Manifest,
    size: tuple[int, int],
    categories: Mapping[str, str] | None = None,
) -> str:
    """Return the data set card of a manifest, computed from its rows alone."""
    splits = from_dict(SplitsConfig, manifest.about.get("splits", {}))
    totals, rows = ManifestTotals(held_out=splits.held_out), iter(manifest)
    while group := list(itertools.islice(rows, 4096)):
        totals.add(group)
    summary = summarize(name, totals, splits=split_names(manifest.about))
    return card(summary, totals, size, categories)
