"""Who is shown what: every cell of image × method (or pair) equally often, in random order.

A *treatment* is a method in a study of scores and a pair of methods in a study of choices; a *cell*
is a treatment of one image. Each rater gets the cells that were shown least so far, so that their
counts never differ by more than one while everybody finishes; what raters leave open is given to
those who come later (`Study.join` counts only what was answered, and what may still be).
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hbr.config import check, check_least

StudyKind = Literal["scores", "choice"]

SCORES = range(6)
"""DiffBody (2024), §3: raters give 0 (worst) to 5 (best)."""

DEFAULT_QUESTIONS: Mapping[StudyKind, str] = {
    "scores": "How good is this photograph of a person?",
    "choice": "Which of the two photographs is better?",
}


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a study asks, and of whom how much.

    Attributes:
        kind: `scores`, one photo at a time from 0 to 5; `choice`, the better one of two.
        seed: of every random order in it.
        per_rater: trials for each rater, repeats not counted; None shows every cell to everyone.
        repeats: how many of a rater's trials come again later, to see how steady the rater is.
            They count for nothing else. In a study of choices the sides are swapped.
        title: the heading that raters see; it must not give the methods away.
        question: what raters are asked; empty is the usual one of the kind.
    """

    kind: StudyKind = "scores"
    seed: int = 0
    per_rater: int | None = None
    repeats: int = 0
    title: str = "Photo study"
    question: str = ""

    def __post_init__(self) -> None:
        check(self.kind in DEFAULT_QUESTIONS, "kind", self.kind, "'scores' or 'choice'")
        enough = self.per_rater is None or self.per_rater >= 1
        check(enough, "per_rater", self.per_rater, "1 or more")
        check_least(self, 0, "repeats")
        check(bool(self.title.strip()), "title", self.title, "some text")

    @property
    def asked(self) -> str:
        """The question as raters see it."""
        return self.question or DEFAULT_QUESTIONS[self.kind]


@dataclass(frozen=True)
class Trial:
    """One question to one rater.

    Attributes:
        stem: the image.
        methods: one method, or two in the order left, right.
        repeat_of: position, in the same rater's list, of the trial that this one repeats.
    """

    stem: str
    methods: tuple[str, ...]
    repeat_of: int | None = None


def treatments(kind: StudyKind, methods: Sequence[str]) -> list[tuple[str, ...]]:
    """The methods one by one, or every pair of them."""
    return list(itertools.combinations(methods, 1 if kind == "scores" else 2))


def assign(
    config: StudyConfig,
    stems: Sequence[str],
    methods: Sequence[str],
    shown: Mapping[tuple[str, tuple[str, ...]], int],
    rater: int,
) -> list[Trial]:
    """The trials of a rater, in order; a pure function of its arguments.

    Args:
        config: the study.
        stems: every image.
        methods: every method.
        shown: (stem, methods in the order left, right) → how often earlier raters were shown it.
        rater: number of the rater, which with the seed decides all that is left to chance.
    """
    digest = hashlib.sha256(f"{config.seed}/{rater}".encode()).digest()
    chance = random.Random(int.from_bytes(digest[:8], "big"))
    cells = [(s, t) for s in stems for t in treatments(config.kind, methods)]
    chosen = _least_shown(cells, shown, config.per_rater or len(cells), chance)
    trials = [Trial(stem, sides) for stem, sides in _sides(chosen, shown, chance)]
    return _with_repeats(_apart(trials, chance), config.repeats, chance)


def _least_shown(
    cells: list[tuple[str, tuple[str, ...]]],
    shown: Mapping[tuple[str, tuple[str, ...]], int],
    number: int,
    chance: random.Random,
) -> list[tuple[str, tuple[str, ...]]]:
    """Cells by how seldom they were shown; then whose treatment, then whose image, is seldom."""
    left = cells.copy()
    chance.shuffle(left)
    if number >= len(left):
        return left
    seen = {cell: sum(shown.get((cell[0], side), 0) for side in _orders(cell[1])) for cell in left}
    overall: Counter[tuple[str, ...]] = Counter()
    for (_, treatment), times in seen.items():
        overall[treatment] += times
    own: Counter[tuple[str, ...]] = Counter()
    images: Counter[str] = Counter()
    chosen = []
    for _ in range(number):
        best = min(left, key=lambda c: (seen[c], own[c[1]], overall[c[1]], images[c[0]]))
        left.remove(best)
        chosen.append(best)
        own[best[1]] += 1
        overall[best[1]] += 1
        images[best[0]] += 1
    return chosen


def _orders(treatment: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {treatment, treatment[::-1]}


def _sides(
    chosen: list[tuple[str, tuple[str, ...]]],
    shown: Mapping[tuple[str, tuple[str, ...]], int],
    chance: random.Random,
) -> list[tuple[str, tuple[str, ...]]]:
    """Each pair as often one way round as the other; a single method stays as it is."""
    used: Counter[tuple[str, ...]] = Counter()
    for (_, sides), times in shown.items():
        used[sides] += times
    out = []
    for stem, treatment in chosen:
        orders = sorted(_orders(treatment))
        chance.shuffle(orders)
        sides = min(orders, key=lambda order: used[order])
        used[sides] += 1
        out.append((stem, sides))
    return out


def _apart(trials: list[Trial], chance: random.Random) -> list[Trial]:
    """In random order, the same image never twice running if that can be helped."""
    queues: dict[str, list[Trial]] = {}
    for trial in trials:
        queues.setdefault(trial.stem, []).append(trial)
    for queue in queues.values():
        chance.shuffle(queue)
    order: list[Trial] = []
    last = ""
    for left in range(len(trials), 0, -1):
        # An image that fills more than half of what is left must come now, or will come twice.
        pressing = [s for s, q in queues.items() if 2 * len(q) > left and s != last]
        free = [t for s, q in queues.items() if s != last for t in q]
        if pressing:
            last = pressing[0]
        elif free:
            last = chance.choice(free).stem
        order.append(queues[last].pop())
        if not queues[last]:
            del queues[last]
    return order


def _with_repeats(trials: list[Trial], number: int, chance: random.Random) -> list[Trial]:
    """Some of the first half again, somewhere in the last third."""
    half = trials[: (len(trials) + 1) // 2]
    again = [
        Trial(t.stem, t.methods[::-1], repeat_of=trials.index(t))
        for t in chance.sample(half, min(number, len(half)))
    ]
    out: list[Trial] = trials.copy()
    # repeated trials come before everything that is inserted, so that their position stays
    first = max(len(half), len(trials) - len(trials) // 3)
    for trial in again:
        places = range(first, len(out) + 1)
        apart = [i for i in places if trial.stem not in {t.stem for t in out[i - 1 : i + 1]}]
        out.insert(chance.choice(apart or places), trial)
    return out
