"""The table of external programs (`programs.yaml`), and how a command line is built."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from hbr.config import ConfigError, check, from_dict, load_yaml, read_yaml
from hbr.evaluation.methods.base import MethodError
from hbr.evaluation.methods.config import ProgramConfig, ProgramSpec


@cache
def known_programs() -> dict[str, ProgramSpec]:
    """Every program of the table, by the name that a configuration takes."""
    rows = read_yaml(Path(__file__).with_name("programs.yaml"))
    return {name: from_dict(ProgramSpec, row, name) for name, row in rows.items()}


def find_program(program: ProgramSpec | str) -> ProgramSpec:
    """A program by name, by its YAML file, or as it is.

    Raises:
        MethodError: no such name.
        hbr.config.ConfigError: the YAML file is missing or wrong.
    """
    if isinstance(program, ProgramSpec):
        return program
    if program in known_programs():
        return known_programs()[program]
    if program.endswith((".yaml", ".yml")):
        return load_yaml(ProgramSpec, program)
    names = ", ".join(known_programs())
    raise MethodError(f"no program is called {program!r}; known: {names}; or give a .yaml file")


def settled_values(spec: ProgramSpec, config: ProgramConfig) -> dict[str, str]:
    """The program's own placeholders, with what the configuration says of them.

    Raises:
        hbr.config.ConfigError: an unknown one, one that must be given, or `upscale` for a program
            of a fixed factor.
    """
    for name in config.values:
        expected = f"one of {', '.join(spec.values)}" if spec.values else "none: it has no values"
        check(name in spec.values, "values", name, expected)
    values = {**spec.values, **config.values}
    for name, value in values.items():
        if not value and name not in spec.optional:
            raise ConfigError(f"values.{name} is missing; {spec.name or 'the program'} needs it")
    ok = config.upscale is None or spec.factor is None
    check(ok, "upscale", config.upscale, f"null: the program always enlarges by {spec.factor}")
    return values


def factor_of(spec: ProgramSpec, config: ProgramConfig) -> float:
    """How much the program enlarges what it is fed."""
    return spec.factor or config.upscale or config.scale


def command_line(
    spec: ProgramSpec, config: ProgramConfig, python: list[str], folders: Mapping[str, Path]
) -> list[str]:
    """The words to start, every placeholder filled.

    `python` starts its interpreter; `folders` are "repo", "input" and "output".
    """
    filled = _fillings(spec, config, folders)
    left_out = {f"{{{name}}}" for name in spec.optional if not filled[name]}
    words: list[str] = []
    for word in spec.command:
        if word == "{python}":
            words += python
        elif word not in left_out:
            words.append(word.format_map({**filled, "python": python[0]}))
    return [*words, *config.args]


def needed_paths(spec: ProgramSpec, config: ProgramConfig, repo: Path) -> list[Path]:
    """What must be there before the program starts."""
    folders = {"repo": repo, "input": repo, "output": repo}
    filled = {**_fillings(spec, config, folders), "python": ""}
    return [repo / need.format_map(filled) for need in spec.needs]


def other_commit(spec: ProgramSpec, commit: str | None) -> str:
    """One line if the repository is not at the commit that the command was checked against."""
    if not spec.commit or commit is None or commit.split()[0] == spec.commit:
        return ""
    return (
        f"the repository is at {commit}; the command was checked against {spec.commit}, "
        "and options may have changed since"
    )


def commit_of(repo: Path) -> str | None:
    """The commit of a cloned repository, with " changed" if its files are; None without git."""
    git = ("git", "-C", str(repo))
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        state = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except OSError:
        return None
    if head.returncode or state.returncode:
        return None
    return head.stdout.strip() + (" changed" if state.stdout.strip() else "")


def _fillings(
    spec: ProgramSpec, config: ProgramConfig, folders: Mapping[str, Path]
) -> dict[str, str]:
    own = {name: str(path) for name, path in folders.items()}
    own |= {"upscale": f"{factor_of(spec, config):g}", "seed": str(config.seed)}
    values = {k: v.format_map(own) for k, v in settled_values(spec, config).items()}
    return {**values, **own}
