"""Methods that their own public code trains anew on other photos, as a program.

The folder of a retraining contains the list of photos and the configuration that the program takes,
its log, its checkpoints below `logs`, and at the end `method.yaml`, with which a benchmark or
`hbr methods run` uses the result.
"""

from __future__ import annotations

import copy
import os
import shlex
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from pathlib import Path
from typing import Any

from hbr.config import ConfigError, check, from_dict, read_yaml
from hbr.errors import display_name
from hbr.evaluation.methods.base import MethodError, Report
from hbr.evaluation.methods.processes import (
    Limits,
    end_orphan,
    environment,
    find_python,
    last_line,
    run_program,
)
from hbr.evaluation.methods.programs import commit_of, known_programs, other_commit
from hbr.files import file_lock, write_text

# ResShift's trainer, which SinSR builds on: the keys of its configuration, and what it writes.
_PHOTOS = "data.train.params.txt_file_path"
_VALIDATION = ("data", "val")
_STEPS, _EVERY = "train.iterations", "train.save_freq"
_CHECKPOINTS, _AVERAGES = "ckpts/model_{}.pth", "ema_ckpts/ema_model_{}.pth"

# A program that writes nothing for so long is ended.
_QUIET_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """How the public code of a method trains it; `retraining.yaml` has those of the papers.

    Placeholders: {python}, {gpus}, {config} and {logs} in `command`, {checkpoint} in `resume`,
    {weights} in `values`.

    Attributes:
        program: the method's entry in `programs.yaml`.
        template: its configuration, below the repository.
        command: the words that start a training; it runs in the repository.
        resume: further words, to resume from a checkpoint.
        needs: files that must be there, below the repository.
        values: those of the program that runs the result.
        weights_at: where that program reads the weights, below its working directory, if none of
            its options names them; it then runs in a copy of the repository, made of links.
    """

    program: str
    template: str
    command: tuple[str, ...]
    resume: tuple[str, ...]
    needs: tuple[str, ...]
    values: dict[str, str]
    weights_at: str = ""


@cache
def known_retrainings() -> dict[str, Retraining]:
    """Every entry of `retraining.yaml`, by name."""
    rows = read_yaml(Path(__file__).with_name("retraining.yaml"))
    return {name: from_dict(Retraining, row, name) for name, row in rows.items()}


@dataclass(frozen=True, kw_only=True)
class RetrainingPlan:
    """A retraining, ready to start.

    Attributes:
        spec: how the method is trained.
        repo: the clone of its repository.
        python: the interpreter, as in `ProgramConfig`.
        out: the folder of the retraining.
        gpus: how many GPUs it uses; it sees no others.
        steps: the step of the last checkpoint.
    """

    spec: Retraining
    repo: Path
    python: str
    out: Path
    gpus: int
    steps: int

    @property
    def command(self) -> list[str]:
        """The words to start; with those to resume if there is a checkpoint."""
        words = {"gpus": self.gpus, "config": self.out / "config.yaml", "logs": self.out / "logs"}
        python = find_python(self.python)
        filled = [
            part
            for word in self.spec.command
            for part in (python if word == "{python}" else [word.format_map(words)])
        ]
        if done := self.checkpoints():
            checkpoint = done[max(done)]
            filled += [word.format(checkpoint=checkpoint) for word in self.spec.resume]
        return filled

    @property
    def shell(self) -> str:
        """The line that does the same in a shell."""
        words = f"CUDA_VISIBLE_DEVICES={_gpus(self.gpus)} {shlex.join(self.command)}"
        return f"cd {shlex.quote(str(self.repo))} && {words}"

    def checkpoints(self) -> dict[int, Path]:
        """Step → checkpoint, of those that are whole and have their averaged weights."""
        found = {}
        for path in self.out.glob(f"logs/*/{_CHECKPOINTS.format('*')}"):
            step = path.stem.rpartition("_")[2]
            if step.isdigit() and all(map(zipfile.is_zipfile, (path, _average(path)))):
                found[int(step)] = path
        return found


def write_plan(
    name: str,
    photos: Sequence[Path],
    out: Path,
    *,
    repo: Path,
    python: str,
    gpus: int = 1,
    settings: Sequence[str] = (),
) -> RetrainingPlan:
    """Write the list of photos and the configuration that the method's code takes.

    Args:
        name: an entry of `retraining.yaml`.
        photos: files of HQ photos; the code makes LQ of them by its own degradations.
        out: the folder of the retraining.
        repo: the clone of the method's repository.
        python: the interpreter, as in `ProgramConfig`.
        gpus: how many GPUs share a batch.
        settings: changes of the configuration, `KEY=VALUE` with keys that it has.

    Raises:
        MethodError: something that the code needs is missing, or `out` is of another retraining.
        ConfigError: an unknown name or key.
    """
    known = known_retrainings()
    check(name in known, "method", name, f"one of {', '.join(known)}")
    check(gpus >= 1, "gpus", gpus, "1 or more")
    check(len(photos) > 0, "photos", 0, "one photo or more")
    spec, repo, out = known[name], repo.expanduser().absolute(), out.absolute()
    find_python(python)
    for needed in (spec.template, *spec.needs):
        if not (repo / needed).exists():
            install = " ".join(known_programs()[spec.program].install.split())
            raise MethodError(f"{display_name(repo / needed)} is missing; {install}")
    config = _configuration(repo / spec.template, out / "photos.txt", settings)
    steps, every = int(_value(config, _STEPS)), int(_value(config, _EVERY))
    check(1 <= every <= steps, _EVERY, every, f"1 to {steps}, the number of steps")
    _write(out / "photos.txt", _listed(photos), out)
    _write(out / "config.yaml", _yaml(config), out)
    return RetrainingPlan(
        spec=spec, repo=repo, python=python, out=out, gpus=gpus, steps=steps // every * every
    )


def retrain(plan: RetrainingPlan, *, report: Report) -> Path:
    """Train to the end, from the last checkpoint if there is one, and write `method.yaml`.

    Args:
        plan: what to train.
        report: called with lines about the progress.

    Returns:
        `method.yaml`.

    Raises:
        MethodError: the program ended before its last step, or another one is at work.
        KeyboardInterrupt: the program is ended; its checkpoints are kept.
    """
    busy = MethodError(f"{display_name(plan.out)}: another retraining is at work")
    with file_lock(plan.out / "lock", busy):
        end_orphan(plan.out / "process.json")
        done = plan.checkpoints()
        if plan.steps not in done:
            if done:
                report(f"resuming at step {max(done)} of {plan.steps}")
            done = _train(plan, report)
        return _write_method(plan, _average(done[plan.steps]))


def _train(plan: RetrainingPlan, report: Report) -> dict[int, Path]:
    commit = commit_of(plan.repo)
    if line := other_commit(known_programs()[plan.spec.program], commit):
        report(line)
    log = plan.out / "training.log"
    ended = run_program(
        plan.command,
        workdir=plan.repo,
        env=environment(find_python(plan.python), {"CUDA_VISIBLE_DEVICES": _gpus(plan.gpus)}),
        log=log,
        limits=Limits(float("inf"), _QUIET_SECONDS),
        record=plan.out / "process.json",
        look=_steps_reported(plan, report),
    )
    done = plan.checkpoints()
    if plan.steps not in done:
        said = last_line(log)
        why = f"{ended}" + (f", its last words: {said}" if said else "")
        raise MethodError(
            f"{plan.spec.program} is at step {max(done, default=0)} of {plan.steps}: {why} "
            f"(log: {display_name(log)}); the same command resumes it"
        )
    return done


def _steps_reported(plan: RetrainingPlan, report: Report) -> Callable[[], int]:
    reached = max(plan.checkpoints(), default=0)

    def look() -> int:
        nonlocal reached
        if (step := max(plan.checkpoints(), default=0)) > reached:
            reached = step
            report(f"step {step} of {plan.steps}")
        return reached

    return look


def _gpus(count: int) -> str:
    """The GPUs that the program sees: it divides its batch by the number that it sees."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = visible.split(",") if visible else [str(number) for number in range(count)]
    check(len(names) >= count, "gpus", count, f"at most {len(names)}, those of this process")
    return ",".join(names[:count])


def _average(checkpoint: Path) -> Path:
    """The averaged weights that belong to a checkpoint."""
    step = checkpoint.stem.rpartition("_")[2]
    return checkpoint.parents[1] / _AVERAGES.format(step)


def _configuration(template: Path, photos: Path, settings: Sequence[str]) -> dict[str, Any]:
    published = read_yaml(template)
    for key in (setting.partition("=")[0] for setting in settings):
        try:
            _value(published, key)
        except (KeyError, TypeError):
            raise ConfigError(f"--set {key}: {template.name} has no such key") from None
    config: dict[str, Any] = copy.deepcopy(read_yaml(template, settings))
    keys = _PHOTOS.split(".")
    reduce(lambda values, key: values[key], keys[:-1], config)[keys[-1]] = [str(photos)]
    # pictures of its authors, which are not part of the repository
    config[_VALIDATION[0]].pop(_VALIDATION[1], None)
    return config


def _value(values: Any, key: str) -> Any:
    return reduce(lambda inside, part: inside[part], key.split("."), values)


def _listed(photos: Sequence[Path]) -> str:
    """One photo a line, each ended: the code takes the last character off every line."""
    for photo in photos:
        ok = "\n" not in str(photo) and "\r" not in str(photo)
        check(ok, "photos", str(photo), "names without line breaks: they are listed one a line")
    return "".join(f"{photo.absolute()}\n" for photo in photos)


def _yaml(values: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(values), sort_keys=False)


def _write(path: Path, text: str, out: Path) -> None:
    """Write a file, unless it is there with another content."""
    content = text.encode("utf-8", "backslashreplace")
    if path.exists() and path.read_bytes() != content:
        raise MethodError(
            f"{display_name(out)} holds a retraining with another {path.name}; "
            "choose another folder"
        )
    write_text(path, text)


def _write_method(plan: RetrainingPlan, weights: Path) -> Path:
    spec, repo = plan.spec, plan.repo
    if spec.weights_at:
        repo = _linked(plan.repo, plan.out / "repository", spec.weights_at, weights)
    given = Path(plan.python).expanduser()
    method = {
        "kind": "program",
        "program": spec.program,
        "python": str(given.absolute()) if given.exists() else plan.python,
        "repo": str(repo),
        "values": {key: value.format(weights=weights) for key, value in spec.values.items()},
        "input": "small",
    }
    write_text(plan.out / "method.yaml", _yaml({"method": method}))
    return plan.out / "method.yaml"


def _linked(repo: Path, copy: Path, place: str, weights: Path) -> Path:
    """The repository as links, with other weights at one place."""
    inside = copy / Path(place).parent
    inside.mkdir(parents=True, exist_ok=True)
    beside = (repo / Path(place).parent).iterdir()
    for path in (*repo.iterdir(), *beside):
        _link(copy / path.relative_to(repo), path)
    (copy / place).unlink(missing_ok=True)
    (copy / place).symlink_to(weights)
    return copy


def _link(link: Path, target: Path) -> None:
    if not link.is_symlink() and not link.exists():
        link.symlink_to(target)
