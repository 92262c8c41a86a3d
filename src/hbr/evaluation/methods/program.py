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
from itertools import islice
from pathlib import Path
from typing import Any

from hbr.config import to_dict
from hbr.errors import display_name, reason
from hbr.evaluation.methods.base import MethodError, MethodOutcome, Report
from hbr.evaluation.methods.config import ProgramConfig
from hbr.evaluation.methods.folder import find_result
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
    settled_values,
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
from hbr.files import sha256
from hbr.image.paths import is_photo_name, walk_files

# Starts in a row that bring nothing: the program is broken, not an image.
_HOPELESS = 3
_RECORD = "process.json"
# The fields of a program that its results depend on.
_WHAT_IT_DOES = ("command", "outputs", "workdir", "values", "factor")

Todo = dict[str, Path]


class ProgramMethod:
    """A program over the inputs, in its own environment."""

    def __init__(self, config: ProgramConfig) -> None:
        """Take the configuration and look whether it fits the program."""
        self.config = config
        self.spec = find_program(config.program)
        self.factor = factor_of(self.spec, config)
        settled_values(self.spec, config)

    def run(
        self,
        inputs: Mapping[str, Path],
        out: Path,
        *,
        resume: bool = True,
        report: Report = lambda line: None,
    ) -> MethodOutcome:
        """See `hbr.evaluation.methods.base.Method`."""
        told = to_dict(self.spec)
        program = {name: told[name] for name in _WHAT_IT_DOES}
        who = identity(self.config, program=program)
        work = out.absolute() / WORK
        with ResultFolder(out, who, inputs, resume=resume) as results:
            if not resume:
                _remove_starts(work)
            todo, failed = results.to_do(inputs, lambda stem, path: sha256(path))
            if todo:
                todo, bad = self._take_over(work, todo, results, report)
                failed |= bad
            if todo:
                failed |= self._restore(work, todo, results, report)
            return results.outcome(inputs, failed)

    def _command(self, input_folder: Path, output_folder: Path) -> list[str]:
        """The command line for these folders."""
        folders = {"repo": self._repo, "input": input_folder, "output": output_folder}
        return command_line(self.spec, self.config, find_python(self.config.python), folders)

    def _check_ready(self) -> None:
        """Look whether what the program needs is there, else say what to install."""
        find_python(self.config.python)
        install = f"; {' '.join(self.spec.install.split())}" if self.spec.install else ""
        if not self._repo.is_dir():
            raise MethodError(f"repo is {str(self.config.repo)!r}, which is not a folder{install}")
        for path in needed_paths(self.spec, self.config, self._repo):
            if not path.exists():
                raise MethodError(f"{display_name(path)} is missing{install}")

    @property
    def _repo(self) -> Path:
        return self.config.repo.expanduser().absolute()

    def _restore(
        self, work: Path, todo: Todo, results: ResultFolder, report: Report
    ) -> dict[str, str]:
        """Start the program until all is there or nothing more comes."""
        self._check_ready()
        told = {"name": self.spec.name, "licence": self.spec.licence}
        commit = commit_of(self._repo)
        results.note({**told, "commit": commit})
        if line := other_commit(self.spec, commit):
            report(line)
        failed: dict[str, str] = {}
        in_vain = 0
        for part in _parts(todo, self.config.at_once):
            for _ in range(self.config.attempts):
                if not part or in_vain >= _HOPELESS:
                    break
                run = _new_folder(work)
                staged, bad = self._stage(run, part, results)
                failed |= bad
                if not staged:
                    shutil.rmtree(run)
                    break
                made, missing, wrong = self._start(run, staged, results, report)
                failed |= wrong | missing
                in_vain = 0 if made else in_vain + 1
                part = {stem: staged[stem] for stem in missing} if made else {}
        untried = f"not tried: the last {_HOPELESS} starts of the program made nothing"
        return {stem: failed.get(stem, untried) for stem in todo if not results.has(stem)}

    def _start(
        self, run: Path, staged: Todo, results: ResultFolder, report: Report
    ) -> tuple[int, dict[str, str], dict[str, str]]:
        """One start: how many results it made, whose are missing or damaged, whose are wrong."""
        log = run.with_suffix(".log")
        command = self._command(run / "input", run / "output")
        _begin_log(log, command, {stem: _name(stem, results) for stem in staged})
        ended = run_program(
            command,
            workdir=self._repo if self.spec.workdir == "repo" else run,
            env=environment(find_python(self.config.python), self.config.env),
            log=log,
            limits=Limits(
                self.config.start_seconds + len(staged) * self.config.image_seconds,
                self.config.quiet_seconds,
            ),
            record=run / _RECORD,
            look=lambda: _count(run, staged, report),
        )
        each = ended.seconds / len(staged)
        made, missing, wrong = self._harvest(run, staged, results, each)
        # what left the program's group may still write; the next run removes the rest
        shutil.rmtree(run, ignore_errors=True)
        report(f"{made} of {len(staged)} made: {ended}")
        said = last_line(log)
        why = f"{ended}" + (f", its last words: {said}" if said else "")
        log_name = display_name(log)
        missing = {stem: f"{line}; {why} (log: {log_name})" for stem, line in missing.items()}
        return made, missing, wrong

    def _stage(self, run: Path, part: Todo, results: ResultFolder) -> tuple[Todo, dict[str, str]]:
        """Write the inputs as the program is to see them."""
        config = self.config
        (run / "output").mkdir(parents=True)
        staged, failed = {}, {}
        for stem, path in part.items():
            try:
                pixels = read_pixels(path)
                size = fed_size(_size(pixels), config.scale, self.factor, config.input)
                name = _name(stem, results)
                write_pixels(resized(pixels, size), run / "input" / f"{name}.png")
            except (OSError, ValueError) as error:
                failed[stem] = reason(error)
            else:
                staged[stem] = path
        return staged, failed

    def _harvest(
        self, run: Path, staged: Todo, results: ResultFolder, seconds: float
    ) -> tuple[int, dict[str, str], dict[str, str]]:
        """Take the results over: how many, whose are missing or damaged, whose are wrong."""
        config = self.config
        made, missing, wrong = 0, {}, {}
        for stem, path in staged.items():
            try:
                found = find_result(run, self.spec.outputs, {"name": _name(stem, results)})
                result = read_pixels(found)
            except FileNotFoundError:
                missing[stem] = "no result"
                continue
            except (OSError, ValueError) as error:
                missing[stem] = reason(error).replace(f"{display_name(run)}/", "")
                continue
            try:
                size = _size(read_pixels(path))
                fed = fed_size(size, config.scale, self.factor, config.input)
                native = wanted_size(fed, self.factor)
                wanted = wanted_size(size, config.scale)
                final = fitted(result, native, wanted, resize=config.resize)
                results.add(stem, final, seconds)
                made += 1
            except (OSError, ValueError) as error:
                wrong[stem] = reason(error)
        return made, missing, wrong

    def _take_over(
        self, work: Path, todo: Todo, results: ResultFolder, report: Report
    ) -> tuple[Todo, dict[str, str]]:
        """What starts of a killed run have left: end them, keep what is whole."""
        failed: dict[str, str] = {}
        _end_orphans(work)
        for run in sorted(path for path in work.glob("run-*") if path.is_dir()):
            left = {stem: path for stem, path in todo.items() if stem not in failed}
            made, missing, wrong = self._harvest(run, left, results, self._took(run))
            failed |= wrong
            todo = {stem: path for stem, path in todo.items() if stem in missing}
            shutil.rmtree(run, ignore_errors=True)
            if made:
                report(f"{made} taken over from a start that was interrupted")
        return todo, failed

    def _took(self, run: Path) -> float:
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


def _name(stem: str, results: ResultFolder) -> str:
    told = f"{results.method_digest}\0{stem}\0{results.key(stem)}"
    return "i" + hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:15]


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
