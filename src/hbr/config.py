"""Convert YAML to frozen dataclasses and back; unknown keys and wrong types are errors."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hbr.errors import ExitCode, HbrError, one_line
from hbr.recipes import find_recipe

T = TypeVar("T")


class ConfigError(HbrError, ValueError):
    """The configuration is invalid; the message names the field and the values allowed."""

    exit_code = ExitCode.USAGE
    http_status = 422


def check(ok: bool, field: str, got: object, expected: str) -> None:
    """Raise `ConfigError` unless `ok`, naming the field, its value and what is expected."""
    if not ok:
        raise ConfigError(f"{field} is {got!r}; it must be {expected}")


def check_least(config: object, least: int, *names: str) -> None:
    """Raise `ConfigError` unless each of these fields of a configuration is `least` or more."""
    for name in names:
        got = getattr(config, name)
        check(got >= least, name, got, f"{least} or more")


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Build the dataclass `cls` from plain values, nested dataclasses, tuples and dicts included.

    `where` is the dotted path of `values`, for messages.

    Raises:
        ConfigError: a key is unknown or missing, a value has the wrong type, or a check failed.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or 'the configuration'} is {values!r}; it must be a mapping")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    if unknown := [key for key in values if key not in fields]:
        raise ConfigError(
            f"{_join(where, str(unknown[0]))} is not known; it may be one of {', '.join(fields)}"
        )
    missing = [
        name
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{_join(where, missing[0])} is missing")
    kwargs = {k: _convert(hints[k], v, _join(where, k)) for k, v in values.items()}
    try:
        return cls(**kwargs)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}" if where else str(error)) from None


def to_dict(config: Any) -> dict[str, Any]:
    """Convert a dataclass to plain values (dicts, lists, text, numbers) for `from_dict`."""

    def plain(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, (tuple, list)):
            return [plain(v) for v in value]
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return str(value) if isinstance(value, Path) else value

    return typing.cast(dict[str, Any], plain(config))


def first_difference(
    old: Any, new: Any, where: str = "", free: typing.Collection[str] = ()
) -> tuple[str, Any, Any] | None:
    """Return the first difference of two plain values from `to_dict`; None if they are equal.

    Lists of mappings are compared item by item; mappings with different `kind`, and other lists,
    are compared as single values.

    `where` is the dotted path of both, for messages; the paths in `free` may differ.

    Returns:
        the dotted path, and both values there.
    """
    if where in free:
        return None
    both = (old, new)
    if all(isinstance(v, dict) for v in both) and old.get("kind") == new.get("kind"):
        parts = [(_join(where, key), old.get(key), new.get(key)) for key in {**old, **new}]
    elif all(isinstance(v, list) for v in both) and [*map(type, old)] == [dict] * len(new):
        parts = [(f"{where}[{i}]", *pair) for i, pair in enumerate(zip(old, new, strict=True))]
    else:
        return None if old == new else (where, old, new)
    found = (first_difference(a, b, path, free) for path, a, b in parts)
    return next((difference for difference in found if difference), None)


def load_yaml(cls: type[T], path: str | Path, settings: Sequence[str] = ()) -> T:
    """Read the YAML file `path`, overridden by `settings`, into the dataclass `cls`.

    Raises:
        ConfigError: as for `read_yaml`, or the file does not fit `cls`; the message names the file.
    """
    values = read_yaml(path, settings)
    try:
        return from_dict(cls, values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_yaml(path: str | Path, settings: Sequence[str] = ()) -> Any:
    """Read a YAML file, merged into its base if it has one.

    A file may inherit from another with `base: OTHER.yaml`, relative to itself, or with the name of
    a recipe, `base: NAME`, and then holds only the changes. Mappings are merged key by key; other
    values, lists and mappings with a different `kind` are replaced.

    Args:
        settings: overrides as `KEY=VALUE`: the key is a dotted path such as `optim.lr`, or
            `phases.0.steps` for a list item; the value is YAML.

    Raises:
        ConfigError: a file is missing, is not YAML or is its own base; a setting has no value, or
            its key does not lead to a mapping.
    """
    values = _read_over_base(Path(path), ())
    for setting in settings:
        key, equals, text = setting.partition("=")
        check(bool(key and equals), "--set", setting, "KEY=VALUE, such as optim.lr=1e-4")
        values = _set(values, key.split("."), _parse(text, f"--set {setting}"), key)
    return values


def _read_over_base(path: Path, above: tuple[Path, ...]) -> Any:
    """Read a YAML file merged into its base; `above` are the files that inherit from it."""
    values = _read_yaml(path)
    if not isinstance(values, dict) or "base" not in values:
        return values
    name = values.pop("base")
    if not isinstance(name, str):
        raise ConfigError(f"{path}: base is {name!r}; it must be a path or the name of a recipe")
    above = (*above, path.resolve())
    base = path.parent / name
    if not base.is_file():
        base = find_recipe(name) or base
    if base.resolve() in above:
        raise ConfigError(f"{path}: base is {name!r}; it must not lead back to the file itself")
    under = _read_over_base(base, above)
    if not isinstance(under, dict):
        raise ConfigError(f"{base}: the configuration is {under!r}; it must be a mapping")
    return _over(under, values)


def _read_yaml(path: Path) -> Any:
    try:
        return _parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not YAML: {one_line(error)}") from None


def _parse(text: str, where: str) -> Any:
    import yaml

    try:
        # libyaml's parser takes a sixth of the time, where it is there
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{where} is not YAML: {one_line(error)}") from None


def _set(values: Any, keys: Sequence[str], value: Any, where: str) -> Any:
    """Return `values` with the value at nested keys replaced; keys of lists are indices."""
    if not keys:
        return value
    key, *rest = keys
    if isinstance(values, list):
        ok = key.isdecimal() and int(key) < len(values)
        check(ok, f"--set {where}: {key}", key, f"a place in the list, 0 to {len(values) - 1}")
        changed = _set(values[int(key)], rest, value, where)
        return [*values[: int(key)], changed, *values[int(key) + 1 :]]
    ok = values is None or isinstance(values, dict)
    check(ok, f"--set {where}: what holds {key}", values, "a mapping")
    under = values or {}
    return {**under, key: _set(under.get(key), rest, value, where)}


def _over(base: Any, values: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(values, dict)):
        return values
    if "kind" in values and values["kind"] != base.get("kind"):
        return values
    return {**base, **{k: _over(base.get(k), v) for k, v in values.items()}}


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:  # with a function that converts the value
        return args[1](value, where)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(args, value, where)
    if origin is typing.Literal:
        check(value in args, where, value, _one_of(args))
        return value
    if origin is tuple:
        return _convert_tuple(args, value, where)
    if origin is dict:
        check(isinstance(value, dict), where, value, "a mapping")
        return {
            _convert(args[0], k, where): _convert(args[1], v, _join(where, str(k)))
            for k, v in value.items()
        }
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if hint in _SCALARS:
        fits, expected = _SCALARS[hint]
        check(fits(value), where, value, expected)
        return hint(value)
    return value


def _convert_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    check(isinstance(value, (list, tuple)), where, value, "a list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    check(len(value) == len(args), where, value, f"a list of {len(args)}")
    pairs = enumerate(zip(args, value, strict=True))
    return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in pairs)


def _convert_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    """Convert to the first option that fits; for a mapping, to the dataclass of its `kind`."""
    if value is None and type(None) in options:
        return None
    structured = [option for option in options if dataclasses.is_dataclass(option)]
    if isinstance(value, dict) and len(structured) == 1:
        return _convert(structured[0], value, where)
    kinds = {option.kind: option for option in options if hasattr(option, "kind")}
    if isinstance(value, dict) and len(kinds) > 1:
        if "kind" not in value:
            raise ConfigError(f"{_join(where, 'kind')} is missing; it may be {_one_of(kinds)}")
        kind = value["kind"]
        check(isinstance(kind, str) and kind in kinds, _join(where, "kind"), kind, _one_of(kinds))
        return _convert(kinds[kind], value, where)
    errors = []
    for option in options:
        if option is type(None):
            continue
        try:
            return _convert(option, value, where)
        except ConfigError as error:
            errors.append(error)
    raise errors[0]


def _one_of(names: typing.Iterable[Any]) -> str:
    return "one of " + ", ".join(map(repr, names))


def _is_number(value: Any) -> bool:
    if isinstance(value, str):  # YAML 1.1 reads 1e-4 as text
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# scalar type → (check of a YAML or JSON value, description of what is expected)
_SCALARS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: isinstance(value, bool), "true or false"),
    float: (_is_number, "a number"),
    int: (lambda value: type(value) is int, "a whole number"),
    str: (lambda value: isinstance(value, str), "text"),
    Path: (lambda value: isinstance(value, str), "a path"),
}
