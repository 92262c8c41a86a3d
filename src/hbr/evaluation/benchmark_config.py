"""A benchmark as plain data: data sets, methods, the table; and those that hbr ships."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from hbr.config import ConfigError, check, check_least, from_dict, read_yaml, to_dict
from hbr.evaluation.methods import method_at
from hbr.evaluation.methods.config import MethodConfig
from hbr.evaluation.papers import TableRows, paper_table
from hbr.metrics import MetricError, find_metric
from hbr.weights import entries as known_weights

# ${name} must be given by the user; ${name:-something} may be
_PARAMETER = re.compile(r"\$\{([A-Za-z0-9_.*-]+?)(?::-([^}]*))?\}")


@dataclass(frozen=True, kw_only=True)
class LqFolder:
    """LQ files that are there already.

    Attributes:
        folder: where they are.
        published: the edition which the paper's numbers belong to.
        checksums: edition → a file of `sha256sum` lines; an empty path means none. Only these
            identify the files.
        strip: endings taken off their names; see `hbr.evaluation.pairing.StemRules`.
    """

    folder: Path
    published: str = ""
    checksums: dict[str, str] = field(default_factory=dict)
    strip: tuple[str, ...] = ()
    kind: Literal["folder"] = "folder"


@dataclass(frozen=True)
class LqRecipe:
    """LQ that is made of HQ here; the result is of HQ's size.

    Attributes:
        recipe: a name of `hbr degrade --recipe`, or a YAML file.
        seed: with the content of a picture, it alone decides what its degradation is.
    """

    recipe: str = "real-esrgan"
    seed: int = 0
    kind: Literal["recipe"] = "recipe"

    def __post_init__(self) -> None:
        check_least(self, 0, "seed")


@dataclass(frozen=True, kw_only=True)
class DataSetConfig:
    """Pictures to restore, and what they are measured against.

    Attributes:
        metrics: ids or aliases; these are its columns in the table.
        lq: what methods see.
        hq: references; None where there are none.
        pictures: how many there should be; a different number is noted in the table.
        recursive: pictures in sub-folders too.
        strip_hq: endings taken off the names of references.
        people: COCO file with the people in the references, for the metrics of people.
        pose: ONNX file that finds key points in restored pictures.
        with_weights: more metrics, each computed only if its weights are on this machine.
    """

    metrics: tuple[str, ...]
    lq: LqFolder | LqRecipe
    hq: Path | None = None
    pictures: int | None = None
    recursive: bool = False
    strip_hq: tuple[str, ...] = ()
    people: Path | None = None
    pose: Path | None = None
    with_weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field; the names of metrics are looked up."""
        _ids("with_weights", self.with_weights)
        check(len(self.metrics) > 0, "metrics", self.metrics, "one or more")
        check(len(set(self.ids)) == len(self.ids), "metrics", self.metrics, "each metric once")
        made = isinstance(self.lq, LqRecipe)
        check(not made or self.hq is not None, "hq", self.hq, "a folder, to make LQ of")
        if self.hq is None:
            kinds = ("full-reference", "distribution", "person")
            needy = [name for name in self.ids if find_metric(name).kind in kinds]
            check(not needy, "metrics", ", ".join(needy), "without references where hq is missing")
        person = [name for name in self.ids if find_metric(name).kind == "person"]
        found = self.people is not None or not person
        check(found, "people", None, f"a COCO file, for {', '.join(person)}")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the metrics, in order."""
        return _ids("metrics", self.metrics)


@dataclass(frozen=True)
class TableConfig:
    """How the table looks.

    Attributes:
        caption: the line above it.
        rows: what the rows are; the columns are the metrics, grouped by the other one.
        decimals: metric → digits after the point; others have 4.
        notes: lines below it.
    """

    caption: str = ""
    rows: TableRows = "methods"
    decimals: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check every field; the names of metrics are looked up."""
        for metric, digits in self.decimals.items():
            check(0 <= digits <= 10, f"decimals.{metric}", digits, "0 to 10")
        _ids("decimals", self.decimals)


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What is restored, by what, and how it is measured.

    Attributes:
        title: in words.
        data_sets: name → data set.
        methods: name → method, in the order of the table.
        table: its layout.
        paper: the table to compare with, such as `osdhuman.table2_methods`; empty for none.
        tolerance: metric → how far a mean may be from the printed one; others have the usual
            ones of `hbr.evaluation.papers`.
        against: the method that the others are compared with, picture by picture; by default the
            first.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """

    title: str
    data_sets: dict[str, DataSetConfig]
    methods: dict[str, MethodConfig]
    table: TableConfig = field(default_factory=TableConfig)
    paper: str = ""
    tolerance: dict[str, float] = field(default_factory=dict)
    against: str = ""
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        check(len(self.data_sets) > 0, "data_sets", self.data_sets, "one or more")
        check(len(self.methods) > 0, "methods", self.methods, "one or more")
        check_least(self, 0, "resamples", "seed")
        for metric, allowed in self.tolerance.items():
            check(allowed >= 0, f"tolerance.{metric}", allowed, "0 or more")
        _ids("tolerance", self.tolerance)
        if self.paper:
            paper_table(self.paper)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark with the user's paths in it.

    Attributes:
        name: of the YAML.
        config: what can be run with the paths that were given.
        left_out: data set → the parameters that were not given.
        not_run: method → the parameters that were not given.
        without_weights: metrics that are not computed because their weights are not here.
    """

    name: str
    config: BenchmarkConfig
    left_out: Mapping[str, tuple[str, ...]]
    not_run: Mapping[str, tuple[str, ...]]
    without_weights: tuple[str, ...] = ()


def _ids(field_name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The ids of metrics."""
    try:
        return tuple(find_metric(name).id for name in names)
    except MetricError as error:
        raise ConfigError(f"{field_name}: {error}") from None


def shipped() -> tuple[str, ...]:
    """The names of the benchmarks that hbr ships."""
    folder = files("hbr.evaluation").joinpath("benchmarks")
    names = (item.name for item in folder.iterdir() if item.name.endswith(".yaml"))
    return tuple(sorted(name.removesuffix(".yaml") for name in names))


def read_raw(name: str) -> tuple[str, dict[str, Any]]:
    """The name and the values of a shipped benchmark or a YAML file, parameters still in them.

    Raises:
        ConfigError: there is none, or it is not YAML.
    """
    if name in shipped():
        return name, read_yaml(Path(__file__).with_name("benchmarks") / f"{name}.yaml")
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(
            f"no benchmark is called {name!r}; it may be a YAML file, or one of "
            f"{', '.join(shipped())}"
        )
    values = read_yaml(path)
    check(isinstance(values, dict), str(path), values, "a mapping")
    return path.stem, values


def parameters(values: Any) -> dict[str, str | None]:
    """The `${name}` in a benchmark's values → the default, None where one must be given."""
    found: dict[str, str | None] = {}
    _filled(values, lambda match: found.setdefault(match[1], match[2]) or "")
    return found


def load_benchmark(
    name: str, given: Mapping[str, str], methods: Mapping[str, str] | None = None
) -> Benchmark:
    """A shipped benchmark, or a YAML file, with the user's paths and methods.

    A data set whose parameters are not given is left out; a method whose are not is not run.

    Args:
        name: of a shipped benchmark, or a file.
        given: parameter → value.
        methods: name → a folder of results, a model file or a YAML file of a method
            (`hbr.evaluation.methods.method_at`), in place of the benchmark's method of that name
            or behind them.

    Raises:
        ConfigError: it cannot be used; a parameter that it does not have; nothing is left to run.
    """
    name, values = read_raw(name)
    known = parameters(values)
    if unknown := sorted(given.keys() - known.keys()):
        listed = ", ".join(known) or "none"
        raise ConfigError(f"{name} has no parameter {unknown[0]!r}; it has {listed}")
    own = {name: _users_method(place) for name, place in (methods or {}).items()}
    values = {**values, "methods": {**(values.get("methods") or {}), **own}}
    if against := values.get("against"):
        ok = against in values["methods"]
        check(ok, f"{name}: against", against, f"one of {', '.join(values['methods'])}")
    lacking: dict[str, dict[str, tuple[str, ...]]] = {"data_sets": {}, "methods": {}}
    for section, absent in lacking.items():
        entries = values.get(section)
        if not isinstance(entries, dict):
            continue  # reported below
        for key, entry in entries.items():
            needed = {n for n, default in parameters(entry).items() if default is None}
            if missing := sorted(needed - given.keys()):
                absent[str(key)] = tuple(missing)
        values[section] = {k: v for k, v in entries.items() if str(k) not in absent}
        if entries and not values[section]:
            lacks = dict.fromkeys(needed for missing in absent.values() for needed in missing)
            options = " or ".join(f"--data {needed}=PATH" for needed in lacks)
            what = section.replace("_", " ")
            raise ConfigError(f"{name} has no {what} to run on; give {options}")
    try:
        filled = _filled(values, lambda match: given.get(match[1], match[2] or ""))
        filled["methods"] = _methods(filled.get("methods"))
        config = from_dict(BenchmarkConfig, filled)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    wanted = {i for d in config.data_sets.values() for i in _ids("with_weights", d.with_weights)}
    without = {id for id in wanted if not _has_weights(id)}
    here = {name: _with_weights(d, without) for name, d in config.data_sets.items()}
    config = dataclasses.replace(config, data_sets=here)
    return Benchmark(
        name=name,
        config=config,
        left_out=lacking["data_sets"],
        not_run=lacking["methods"],
        without_weights=tuple(sorted(without)),
    )


def _has_weights(metric: str) -> bool:
    return all(known_weights()[name].installed for name in find_metric(metric).weights)


def _with_weights(config: DataSetConfig, without: Container[str]) -> DataSetConfig:
    """The data set with those of its `with_weights` among its metrics that can be computed."""
    here = [id for id in _ids("with_weights", config.with_weights) if id not in without]
    more = tuple(id for id in here if id not in config.ids)
    return dataclasses.replace(config, metrics=(*config.metrics, *more), with_weights=())


def _users_method(place: str) -> dict[str, Any]:
    """The values of a method that the user named by a path, which must exist."""
    if not Path(place).exists():
        raise ConfigError(
            f"{place}: is neither a folder of results nor a YAML file of a method nor a model file"
        )
    return to_dict(method_at(place))


def _methods(entries: Any) -> Any:
    """The methods, with `{given: PATH}` replaced by what is at the path.

    Its other fields, such as `scale`, come before those of a method file.
    """
    if not isinstance(entries, dict):
        return entries
    return {
        name: to_dict(method_at(str(values["given"])))
        | {key: value for key, value in values.items() if key != "given"}
        if isinstance(values, dict) and "given" in values
        else values
        for name, values in entries.items()
    }


def _filled(values: Any, fill: Callable[[re.Match[str]], str]) -> Any:
    """The values with parameters replaced."""
    if isinstance(values, str):
        return _PARAMETER.sub(fill, values)
    if isinstance(values, dict):
        return {key: _filled(value, fill) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_filled(value, fill) for value in values]
    return values
