"""The files of a data set: pairs by stem, the edition of the LQ files, or LQ generated from HQ."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hbr.config import ConfigError
from hbr.errors import display_name
from hbr.evaluation.benchmark_config import DataSetConfig, LqFolder, LqRecipe
from hbr.evaluation.editions import hash_files, identify, read_checksums
from hbr.evaluation.methods.base import Report
from hbr.evaluation.pairing import StemRules, find_pictures
from hbr.evaluation.results import DataSetInfo


@dataclass(frozen=True, kw_only=True)
class DataSetFiles:
    """The pictures of a data set.

    Attributes:
        config: what it is to be.
        info: what it is.
        lq: stem → input of the methods.
        hq: stem → reference; None where there are none.
        failed: stem → reason why there is nothing to restore.
        warnings: one line each.
    """

    config: DataSetConfig
    info: DataSetInfo
    lq: Mapping[str, Path]
    hq: Mapping[str, Path] | None
    failed: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def find_data_set(
    name: str,
    config: DataSetConfig,
    made: Path,
    *,
    workers: int = 1,
    report: Report = lambda line: None,
) -> DataSetFiles:
    """Find a data set's files, or generate its LQ if the benchmark has a recipe.

    `made` is the folder for generated LQ, where results of an earlier run for the same HQ are
    reused.

    Raises:
        hbr.evaluation.pairing.PairingError: no folder, no pictures, two of one stem, or an LQ
            picture without HQ.
        ConfigError: a checksum file or a recipe is invalid.
    """
    hq = None
    if config.hq is not None:
        hq = find_pictures(config.hq, StemRules(config.strip_hq), recursive=config.recursive)
    if isinstance(config.lq, LqFolder):
        found = _from_folder(name, config, config.lq, hq)
    else:
        assert hq is not None  # by DataSetConfig's own check
        found = _from_recipe(name, config, config.lq, hq, made, workers, report)
    n = found.info.n
    if config.pictures is not None and n != config.pictures:
        line = f"{n} pictures, where the published data set has {config.pictures}"
        info = dataclasses.replace(
            found.info, comparable=False, status=f"{found.info.status}; {line}"
        )
        found = dataclasses.replace(found, info=info, warnings=(*found.warnings, f"{name}: {line}"))
    return found


def _from_folder(
    name: str, config: DataSetConfig, source: LqFolder, hq: Mapping[str, Path] | None
) -> DataSetFiles:
    lq = find_pictures(source.folder, StemRules(source.strip), recursive=config.recursive)
    editions = {
        edition: read_checksums(Path(file)) for edition, file in source.checksums.items() if file
    }
    # an unreadable picture is not an error here: the methods fail on it and report the reason
    hashes = hash_files(lq, source.folder, unreadable="unreadable")
    edition = identify(hashes, editions, source.published)
    failed = {}
    warnings = [] if edition.comparable else [f"{name}: {edition.status}"]
    if hq is not None:
        failed = {stem: f"{stem}: HQ has no matching LQ" for stem in sorted(hq.keys() - lq.keys())}
        lone = sorted(lq.keys() - hq.keys())
        if len(lone) == len(lq):
            raise ConfigError(
                f"{name}: no stem in {display_name(source.folder)} is one in "
                f"{display_name(config.hq)}; strip and strip_hq remove suffixes from the names"
            )
        failed |= {stem: f"{stem}: LQ has no matching HQ" for stem in lone}
        lq = {stem: path for stem, path in lq.items() if stem in hq}
    if failed:
        warnings.append(f"{name}: {len(failed)} pictures are not in both folders")
    info = DataSetInfo(
        name=name,
        n=len(lq) + len(failed),
        lq=str(source.folder),
        hq=None if config.hq is None else str(config.hq),
        edition=edition.name,
        status=edition.status,
        comparable=edition.comparable,
        checksum=edition.checksum,
    )
    return DataSetFiles(
        config=config, info=info, lq=lq, hq=hq, failed=failed, warnings=tuple(warnings)
    )


def _from_recipe(
    name: str,
    config: DataSetConfig,
    source: LqRecipe,
    hq: Mapping[str, Path],
    made: Path,
    workers: int,
    report: Report,
) -> DataSetFiles:
    from hbr.degradation.contents import Item
    from hbr.degradation.folder import DegradeSettings, degrade_files
    from hbr.degradation.named_recipes import find_recipe
    from hbr.degradation.pairs import PairLedger
    from hbr.distributed import Shard

    settings = DegradeSettings(
        recipe=find_recipe(source.recipe), recipe_name=source.recipe, seed=source.seed
    )
    items = [
        Item(source=hq[stem], target=made / f"{stem}.png", name=f"{stem}.png", hq=str(hq[stem]))
        for stem in hq
    ]
    ledger = PairLedger(made, Shard())
    lq, failed = {}, {}
    # a process takes seconds to start
    workers = max(1, min(workers, len(items) // 8))
    try:
        outcomes = degrade_files(items, settings, ledger=ledger, resume=True, workers=workers)
        stems = {item.name: stem for stem, item in zip(hq, items, strict=True)}
        for number, outcome in enumerate(outcomes, 1):
            row, stem = outcome.row, stems[outcome.item.name]
            assert row is not None  # there is one shard
            if not outcome.kept:
                report(f"{name}: degraded {number} of {len(items)}")
            if row.error is None:
                lq[stem] = outcome.item.target
            else:
                failed[stem] = row.error
    finally:
        ledger.close()
    how = f"{source.recipe}, seed {source.seed}"
    info = DataSetInfo(
        name=name,
        n=len(hq),
        lq=str(made),
        hq=str(config.hq),
        edition=how,
        status=f"the LQ files are made here by {how}",
        checksum=identify(hash_files(lq, made), {}, "").checksum,
    )
    warnings = (f"{name}: {len(failed)} pictures cannot be degraded",) if failed else ()
    return DataSetFiles(config=config, info=info, lq=lq, hq=hq, failed=failed, warnings=warnings)
