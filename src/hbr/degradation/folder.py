"""Many HQ files → LQ files: each a pure function of its bytes, the recipe and the seed.

What is drawn for a file depends on the seed and the SHA-256 of the file's bytes, and on nothing
else: not on its name, the order, the shard or the number of processes. (Of the bytes rather than
the decoded pixels: they are the same for every decoder, and a shard need not decode what is not
its own.) Each file goes through alone, on one thread, because sums of floats depend on how they
are shared out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from hbr.config import check, check_least, to_dict
from hbr.degradation.contents import Item, contents, digest_of_name
from hbr.degradation.drawing import Degradation, draw
from hbr.degradation.pairs import PairLedger, PairRow
from hbr.degradation.pipeline import degrade
from hbr.degradation.recipe import Recipe, weakened
from hbr.degradation.regions import Regions
from hbr.devices import is_out_of_memory
from hbr.distributed import Shard
from hbr.errors import OutOfMemoryError, OutputError, display_name, one_line, with_type
from hbr.files import FolderWatch, claim, remove_parts, sha256
from hbr.image import DEFAULT_MAX_PIXELS, Photo, PhotoError, read_photo, write_photo
from hbr.image.pixels import to_8_bits
from hbr.image.reading import named_bytes
from hbr.people.grids import GridName, upright_people
from hbr.processes import WorkerDied, finishing, pool_map
from hbr.version import __version__

# 10 % larger than level 6 on degraded photos, in a third of the time
_PNG_COMPRESSION = 3
# of the masks of people, which are softened anyway; there may be ten of them a person
_LONGEST_MASK = 1024
_PEOPLE_AT_THAT = 20


class WorkerKilledError(OutOfMemoryError):
    """A process of the run was killed from outside, most likely because memory ran out."""


@dataclass(frozen=True, kw_only=True)
class DegradeSettings:
    """The settings of a run.

    Attributes:
        recipe: the ranges, at full strength.
        recipe_name: for the manifest.
        seed: from 0.
        strength: see `hbr.degradation.weakened`.
        resize_back: LQ at the size of HQ, else smaller by the recipe's `scale`.
        shard: files that belong to other shards are passed over.
        max_pixels: larger photos are refused.
        people_grid: on which grid of pixels people are annotated in photos that EXIF turns, where
            the annotated size does not tell.
    """

    recipe: Recipe
    recipe_name: str
    seed: int = 0
    strength: float = 1.0
    resize_back: bool = True
    shard: Shard = field(default_factory=Shard)
    max_pixels: int = DEFAULT_MAX_PIXELS
    people_grid: GridName = "stored"

    def __post_init__(self) -> None:
        """Check what numbers there are."""
        check_least(self, 0, "seed")
        check(0 <= self.strength <= 1, "strength", self.strength, "in [0, 1]")
        check_least(self, 1, "max_pixels")


@dataclass(frozen=True)
class DegradedFile:
    """What became of a file.

    Attributes:
        item: the file.
        row: for the manifest; None if the file belongs to another shard, or another run is at it.
        kept: an earlier run, or another one, had made the same.
        busy: another run is at it.
    """

    item: Item
    row: PairRow | None
    kept: bool = False
    busy: bool = False


def draw_for(recipe: Recipe, seed: int, digest: str) -> Degradation:
    """Draw the degradation of a file.

    `digest` is the SHA-256 of the file, in hexadecimal.
    """
    mixed = hashlib.sha256(f"{seed}:{digest}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(mixed[:8]) >> 1)
    return draw(recipe, 1, generator)[0]


def longest_mask(n_people: int) -> int:
    """The longer edge at which masks are drawn: those of a crowd take no more memory than of 20."""
    return round(_LONGEST_MASK * min(1.0, (_PEOPLE_AT_THAT / n_people) ** 0.5))


def degrade_files(
    items: Sequence[Item],
    settings: DegradeSettings,
    *,
    ledger: PairLedger | None = None,
    resume: bool = False,
    workers: int = 1,
) -> Generator[DegradedFile, None, None]:
    """Degrade files; outcomes come in the order of the items, those that other runs were at last.

    A file that cannot be read or written gives a failed row, and the others are done. What killed
    runs have left in the folders of the targets is removed.

    Args:
        items: the files, each with a different target.
        settings: of the run.
        ledger: gets a row for each file that was not kept. Without a folder, this process does all.
        resume: a file whose row in the ledger agrees with this run, and whose LQ file is still the
            one that was written, is kept. What another run with the same ledger is at is left to
            it, and done only if it fails there.
        workers: processes; 1 works in this one.

    Raises:
        OutputError: the disk is full, or the folder of the targets is gone.
        WorkerKilledError: a process was killed from outside.
        KeyboardInterrupt: a signal came; no file is half written.
    """
    folders = {item.target.parent for item in items}
    _remove_parts(folders)
    place = Path(os.path.commonpath([folder.absolute() for folder in folders])) if items else Path()
    in_processes = workers > 1 and (ledger is None or ledger.folder is not None)
    busy: list[Item] = []
    with contextlib.ExitStack() as opened:
        if in_processes:
            opened.callback(_remove_parts, folders)  # of processes that a signal ended
            kept = ledger.folder if ledger else None
            opening = partial(_open_worker, settings, place, resume, kept)
            run = partial(_in_processes, opening, workers)
        else:
            opened.enter_context(_one_thread())
            run = partial(map, _Work(settings, place, resume, ledger))
        for outcome in run((item, False) for item in items):
            if outcome.busy:
                busy.append(outcome.item)
            else:
                yield outcome
        if busy:
            yield from run((item, True) for item in busy)


def _remove_parts(folders: Iterable[Path]) -> None:
    for folder in folders:
        remove_parts(folder)


class _Work:
    """The work on one file."""

    def __init__(
        self, settings: DegradeSettings, place: Path, resume: bool, ledger: PairLedger | None
    ) -> None:
        self._settings = settings
        self._place = FolderWatch(place)
        self._resume = resume
        self._ledger = ledger
        self._recipe = weakened(settings.recipe, settings.strength)
        self._recipe_sha256 = _sha256_of_json(to_dict(self._recipe))

    def __call__(self, job: tuple[Item, bool]) -> DegradedFile:
        """Degrade a file, and wait for another run that is at it if the flag says so."""
        item, wait = job
        row = self._row(item)
        digest = ""
        try:
            data = contents(item)
            digest = hashlib.sha256(data).hexdigest()
            if digest not in self._settings.shard:
                return DegradedFile(item, None)
            return self._claim(item, replace(row, hq_sha256=digest), data, wait)
        except OutputError:
            raise
        except Exception as error:
            if not digest and digest_of_name(item) not in self._settings.shard:
                return DegradedFile(item, None)
            failed = replace(row, status="failed", error=_describe(error, item))
            return self._written(item, failed)

    def _claim(self, item: Item, row: PairRow, data: bytes, wait: bool) -> DegradedFile:
        if not self._resume or self._ledger is None:
            return self._written(item, self._degrade(item, row, data))
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(claim(item.target, wait=wait))
            except BlockingIOError:
                return DegradedFile(item, None, busy=True)
            previous = self._ledger.find(item.name, fresh=True)
            if previous is not None and _is_finished(item, row, previous):
                return DegradedFile(item, previous, kept=True)
            return self._written(item, self._degrade(item, row, data))

    def _written(self, item: Item, row: PairRow) -> DegradedFile:
        """The outcome, in the ledger."""
        if self._ledger is not None:
            with finishing():
                self._ledger.add(row)
        return DegradedFile(item, row)

    def _degrade(self, item: Item, row: PairRow, data: bytes) -> PairRow:
        settings = self._settings
        photo = read_photo(named_bytes(data, item.hq), max_pixels=settings.max_pixels)
        pixels = to_8_bits(photo.pixels)
        assert row.hq_sha256 is not None
        drawn = draw_for(self._recipe, settings.seed, row.hq_sha256)
        h, w = photo.size
        regions = None
        if item.people and drawn.motions:
            people = upright_people(item.people, (h, w), photo.orientation, settings.people_grid)
            regions = Regions.of(people, (h, w), longest=longest_mask(len(people)))
        hq = rearrange(torch.from_numpy(pixels), "h w c -> 1 c h w").float() / 255
        lq = degrade(hq, [drawn], regions=[regions], resize_back=settings.resize_back)
        with finishing():
            self._place.check()
            write_photo(_to_photo(lq), item.target, png_compression=_PNG_COMPRESSION)
        return replace(
            row,
            width=w,
            height=h,
            lq_sha256=sha256(item.target),
            lq_width=lq.shape[-1],
            lq_height=lq.shape[-2],
            degradation=json.dumps(to_dict(drawn)),
        )

    def _row(self, item: Item) -> PairRow:
        """What is known of a file before it is read."""
        settings = self._settings
        people = [to_dict(person) for person in item.people]
        return PairRow(
            name=item.name,
            hq=item.hq,
            status="ok",
            recipe=settings.recipe_name,
            recipe_version=settings.recipe.version,
            recipe_sha256=self._recipe_sha256,
            strength=settings.strength,
            seed=settings.seed,
            resize_back=settings.resize_back,
            people=len(people),
            people_sha256=_sha256_of_json(people) if people else None,
            hbr=__version__,
        )


def _is_finished(item: Item, row: PairRow, previous: PairRow) -> bool:
    """Whether an earlier run made what this one would, and it is still there."""
    made = ("lq_sha256", "width", "height", "lq_width", "lq_height", "degradation")
    expected = replace(row, **{name: getattr(previous, name) for name in made})
    if previous != expected or previous.lq_sha256 is None:
        return False
    try:
        return sha256(item.target) == previous.lq_sha256
    except OSError:
        return False


def _to_photo(image: Tensor) -> Photo:
    pixels = rearrange((image * 255).round().byte(), "1 c h w -> h w c")
    return Photo.from_array(np.ascontiguousarray(pixels.numpy()))


def _sha256_of_json(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _describe(error: Exception, item: Item) -> str:
    """One line that names the file."""
    name = display_name(item.hq)
    text = one_line(error)
    if isinstance(error, PhotoError):
        return text
    if is_out_of_memory(error):
        return f"{name}: out of memory; fewer --workers need less"
    if isinstance(error, ValueError):
        return f"{name}: {text}"
    if isinstance(error, OSError) and error.strerror:
        return f"{name}: {error.strerror.lower()}"
    return f"{name}: unexpected error: {with_type(error)}"


def _in_processes(
    opening: Callable[[], _Work], workers: int, jobs: Iterable[tuple[Item, bool]]
) -> Iterator[DegradedFile]:
    for outcome in pool_map(opening, jobs, workers=workers, preload=(__name__,)):
        if isinstance(outcome, WorkerDied):
            raise WorkerKilledError(
                "a process of the run was killed, most likely because memory ran out; "
                "fewer --workers need less, --resume continues"
            )
        yield outcome


def _open_worker(
    settings: DegradeSettings, place: Path, resume: bool, folder: Path | None
) -> _Work:
    torch.set_num_threads(1)
    ledger = None if folder is None else PairLedger(folder, settings.shard)
    return _Work(settings, place, resume, ledger)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
