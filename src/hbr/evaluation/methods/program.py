"""External programs as methods: nothing they say is trusted, only the files they leave.

The folder `.work` next to the results contains a folder for each start (`run-001`, with `input` and
`output`, removed once the results are taken over) and its log (`run-001.log`, kept). Inputs carry
names of equal length that are made of a hash, so that no name begins with another's, none has a
dot or a blank in it, and what an earlier start left can only be the same method's result of the
same pixels.
"""

from __future__ import annotations

import hashlib
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hbr.config import to_dict
from hbr.errors import display_name, reason
from hbr.evaluation.methods.base import MethodError, Report
from hbr.evaluation.methods.config import ProgramConfig, ProgramSpec
from hbr.evaluation.methods.folder import find_result
from hbr.evaluation.methods.method import MethodSteps
from hbr.evaluation.methods.processes import (
    Limits,
    end_orphan,
    environment,
    find_python,
    last_line,
    run_program,
)
from hbr.evaluation.methods.programs import (
    command_line,
    commit_of,
    factor_of,
    find_program,
    needed_paths,
    other_commit,
)
from hbr.evaluation.methods.resizing import (
    fed_size,
    fitted,
    read_pixels,
    resized,
    wanted_size,
    write_pixels,
)
from hbr.evaluation.methods.result_folder import WORK, ResultFolder, identity
from hbr.image.paths import is_photo_name, walk_files

# Starts in a row that bring nothing: the program is broken, not an image.
_HOPELESS = 3
_RECORD = "process.json"
# The fields of a program that its results depend on.
_WHAT_IT_DOES = ("command", "outputs", "workdir", "values", "factor")

Todo = dict[str, Path]


def prepare(config: ProgramConfig, out: Path) -> MethodSteps:
    """A program over the inputs, in its own environment."""
    spec = find_program(config.program)
    told = to_dict(spec)
    who = identity(config, program={name: told[name] for name in _WHAT_IT_DOES})
    return MethodSteps(
        identity=who, restore=lambda todo, *where: _Starts(config, spec, *where).restore(todo)
    )


@dataclass(frozen=True)
class _Starts:
    """The starts of a program for one folder of results."""

    config: ProgramConfig
    spec: ProgramSpec
    results: ResultFolder
    report: Report

    def restore(self, todo: Todo) -> dict[str, str]:
        """Take over what earlier starts have left, then start the program; what failed."""
        if not self.results.resume:
            _remove_starts(self._work)
        todo, failed = self._take_over(todo) if todo else (todo, {})
        return failed | self._restore(todo) if todo else failed

    @property
    def _work(self) -> Path:
        return self.results.out.absolute() / WORK

    @property
    def _repo(self) -> Path:
        return self.config.repo.expanduser().absolute()

    def _check_ready(self) -> None:
        """Look whether what the program needs is there, else say what to install."""
        find_python(self.config.python)
        install = f"; {' '.join(self.spec.install.split())}" if self.spec.install else ""
        if not self._repo.is_dir():
            raise MethodError(f"repo is {str(self.config.repo)!r}, which is not a folder{install}")
        for path in needed_paths(self.spec, self.config, self._repo):
            if not path.exists():
                raise MethodError(f"{display_name(path)} is missing{install}")

    def _restore(self, todo: Todo) -> dict[str, str]:
        """Start the program until all is there or nothing more comes."""
        self._check_ready()
        told = {"name": self.spec.name, "licence": self.spec.licence}
        commit = commit_of(self._repo)
        self.results.note({**told, "commit": commit})
        if line := other_commit(self.spec, commit):
            self.report(line)
        failed: dict[str, str] = {}
        in_vain = 0
        for part in _parts(todo, self.config.at_once):
            for _ in range(self.config.attempts):
                if not part or in_vain >= _HOPELESS:
                    break
                run = _new_folder(self._work)
                staged, bad = self._stage(run, part)
                failed |= bad
                if not staged:
                    shutil.rmtree(run)
                    break
                made, missing, wrong = self._start(run, staged)
                failed |= wrong | missing
                in_vain = 0 if made else in_vain + 1
                part = {stem: staged[stem] for stem in missing} if made else {}
        untried = f"not tried: the last {_HOPELESS} starts of the program made nothing"
        return {stem: failed.get(stem, untried) for stem in todo if not self.results.has(stem)}

    def _start(self, run: Path, staged: Todo) -> tuple[int, dict[str, str], dict[str, str]]:
        """One start: how many results it made, whose are missing or damaged, whose are wrong."""
        log = run.with_suffix(".log")
        python = find_python(self.config.python)
        folders = {"repo": self._repo, "input": run / "input", "output": run / "output"}
        command = command_line(self.spec, self.config, python, folders)
        _begin_log(log, command, {stem: self._name(stem) for stem in staged})
        ended = run_program(
            command,
            workdir=self._repo if self.spec.workdir == "repo" else run,
            env=environment(python, self.config.env),
            log=log,
            limits=Limits(
                self.config.start_seconds + len(staged) * self.config.image_seconds,
                self.config.quiet_seconds,
            ),
            record=run / _RECORD,
            look=lambda: _count(run, staged, self.report),
        )
        each = ended.seconds / len(staged)
        made, missing, wrong = self._harvest(run, staged, each)
        # what left the program's group may still write; the next run removes the rest
        shutil.rmtree(run, ignore_errors=True)
        self.report(f"{made} of {len(staged)} made: {ended}")
        said = last_line(log)
        why = f"{ended}" + (f", its last words: {said}" if said else "")
        log_name = display_name(log)
        missing = {stem: f"{line}; {why} (log: {log_name})" for stem, line in missing.items()}
        return made, missing, wrong

    def _stage(self, run: Path, part: Todo) -> tuple[Todo, dict[str, str]]:
        """Write the inputs as the program is to see them."""
        config, factor = self.config, factor_of(self.spec, self.config)
        (run / "output").mkdir(parents=True)
        staged, failed = {}, {}
        for stem, path in part.items():
            try:
                pixels = read_pixels(path)
                size = fed_size(_size(pixels), config.scale, factor, config.input)
                name = self._name(stem)
                write_pixels(resized(pixels, size), run / "input" / f"{name}.png")
            except (OSError, ValueError) as error:
                failed[stem] = reason(error)
            else:
                staged[stem] = path
        return staged, failed

    def _harvest(
        self, run: Path, staged: Todo, seconds: float
    ) -> tuple[int, dict[str, str], dict[str, str]]:
        """Take the results over: how many, whose are missing or damaged, whose are wrong."""
        config, factor = self.config, factor_of(self.spec, self.config)
        made, missing, wrong = 0, {}, {}
        for stem, path in staged.items():
            try:
                found = find_result(run, self.spec.outputs, {"name": self._name(stem)})
                result = read_pixels(found)
            except FileNotFoundError:
                missing[stem] = "no result"
                continue
            except (OSError, ValueError) as error:
                missing[stem] = reason(error).replace(f"{display_name(run)}/", "")
                continue
            try:
                size = _size(read_pixels(path))
                fed = fed_size(size, config.scale, factor, config.input)
                native = wanted_size(fed, factor)
                wanted = wanted_size(size, config.scale)
                final = fitted(result, native, wanted, resize=config.resize)
                self.results.add(stem, final, seconds)
                made += 1
            except (OSError, ValueError) as error:
                wrong[stem] = reason(error)
        return made, missing, wrong

    def _take_over(self, todo: Todo) -> tuple[Todo, dict[str, str]]:
        """What starts of a killed run have left: end them, keep what is whole."""
        failed: dict[str, str] = {}
        _end_orphans(self._work)
        for run in sorted(path for path in self._work.glob("run-*") if path.is_dir()):
            left = {stem: path for stem, path in todo.items() if stem not in failed}
            made, missing, wrong = self._harvest(run, left, _took(run))
            failed |= wrong
            todo = {stem: path for stem, path in todo.items() if stem in missing}
            shutil.rmtree(run, ignore_errors=True)
            if made:
                self.report(f"{made} taken over from a start that was interrupted")
        return todo, failed

    def _name(self, stem: str) -> str:
        told = f"{self.results.method_digest}\0{stem}\0{self.results.key(stem)}"
        return "i" + hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:15]


def _took(run: Path) -> float:
    """Seconds for each result of an interrupted start, by the times of its files."""
    times = [path.stat().st_mtime for path in run.glob("output/**/*") if path.is_file()]
    staged = run / "input"
    began = staged.stat().st_mtime if staged.is_dir() else time.time()
    return max(0.0, max(times, default=began) - began) / max(1, len(times))


def _count(run: Path, staged: Todo, report: Report) -> int:
    """How many pictures the program has written."""
    vanished: list[OSError] = []
    names = walk_files(
        run, is_photo_name, enter=lambda folder: folder != run / "input", on_error=vanished.append
    )
    if found := sum(1 for _ in names):
        report(f"{min(found, len(staged))} of {len(staged)} there")
    return found


def _parts(todo: Todo, size: int) -> Iterator[Todo]:
    items = iter(todo.items())
    while part := dict(islice(items, size or len(todo))):
        yield part


def _size(pixels: Any) -> tuple[int, int]:
    return pixels.shape[0], pixels.shape[1]


def _new_folder(work: Path) -> Path:
    taken = [int(p.stem[4:]) for p in work.glob("run-*") if p.stem[4:].isdigit()]
    folder = work / f"run-{max(taken, default=0) + 1:03d}"
    folder.mkdir(parents=True)
    return folder


def _begin_log(log: Path, command: list[str], names: Mapping[str, str]) -> None:
    lines = [f"$ {shlex.join(command)}", *(f"# {n} is {stem}" for stem, n in names.items()), ""]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="backslashreplace")


def _end_orphans(work: Path) -> None:
    for record in work.glob(f"run-*/{_RECORD}"):
        end_orphan(record)


def _remove_starts(work: Path) -> None:
    _end_orphans(work)
    for path in work.glob("run-*"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
