"""From answers to figures: means, win rates, strengths, differences and agreement, with intervals.

Every interval is 95 %, by percentiles of a bootstrap that resamples raters and images, both with
replacement, an answer counting as often as its rater times its image was drawn (the pigeonhole
bootstrap; Owen, Annals of Applied Statistics 1 (2007)). It is meant for statements about other
raters and other images, and rather too wide than too narrow.

Shapes: a answers, b resamples, m methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hbr.evaluation.study.agreement import Level, alpha_of, coincidences, icc
from hbr.evaluation.study.bradley_terry import fit, has_maximum, regularized
from hbr.evaluation.study.design import SCORES, StudyKind
from hbr.evaluation.study.store import Answer, Study, StudyError

BLOCK = 100  # resamples at a time, so that memory stays flat


@dataclass(frozen=True)
class Estimate:
    """A number and the ends of its 95 % interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What raters made of a method.

    Attributes:
        name: of the method.
        n: answers about it.
        score: mean of 0 to 5; None in a study of choices.
        win_rate: share of its comparisons that it won; None in a study of scores.
        strength: Bradley–Terry log-strength, mean over methods 0; None in a study of scores, and
            where it was never compared.
        quartiles: 25 %, 50 %, 75 % of the scores; empty in a study of choices.
    """

    name: str
    n: int
    score: Estimate | None = None
    win_rate: Estimate | None = None
    strength: Estimate | None = None
    quartiles: tuple[float, ...] = ()


@dataclass(frozen=True)
class PairResult:
    """Two methods: difference of mean scores, or how often `first` was chosen over `second`."""

    first: str
    second: str
    n: int
    value: Estimate


@dataclass(frozen=True, kw_only=True)
class RaterResult:
    """A rater, by number.

    Attributes:
        number: from 0, in order of joining.
        answered: trials answered, repeats included.
        total: trials in all.
        repeats: trials that were answered twice.
        steadiness: mean |difference| of those in points, or the share of those with one answer.
        seconds: median from sight to answer.
        left: share of answers for the left side; None in a study of scores.
        excluded: left out of all results.
    """

    number: int
    answered: int
    total: int
    repeats: int
    steadiness: float | None
    seconds: float | None
    left: float | None
    excluded: bool


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far raters agree.

    Attributes:
        level: of α: ordinal for scores, nominal for choices.
        alpha: Krippendorff's α; of choices, chance is one half whatever the methods are called
            and however often they win (Kendall's u is so, too). Its interval resamples images,
            not raters.
        units: images × methods (or pairs) with two answers or more.
        icc_single: ICC(2,1) of scores.
        icc_mean: ICC(2,k), of the mean of all raters.
        icc_units: units that every rater has scored, on which the two rest.
    """

    level: Level
    alpha: Estimate
    units: int
    icc_single: float | None = None
    icc_mean: float | None = None
    icc_units: int = 0


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """A study's figures; `answers` are those that they rest on."""

    kind: StudyKind
    title: str
    question: str
    images: int
    methods: tuple[MethodResult, ...]
    pairs: tuple[PairResult, ...]
    raters: tuple[RaterResult, ...]
    agreement: Agreement
    resamples: int
    seed: int
    hbr: str
    warnings: tuple[str, ...]
    answers: tuple[Answer, ...]


def summarise(
    study: Study, *, resamples: int = 2000, seed: int = 0, exclude: Collection[int] = ()
) -> StudyReport:
    """All figures of a study.

    The study may be open: what is answered counts. `exclude` are numbers of raters.

    Raises:
        StudyError: there are no answers, or no such rater.
    """
    raters, answers = study.raters(), study.answers()
    if unknown := sorted(set(exclude) - set(raters)):
        raise StudyError(f"there is no rater {unknown[0]}; there are {', '.join(map(str, raters))}")
    kept = [a for a in answers if a.rater not in exclude and a.repeat_of is None]
    if not kept and answers:
        raise StudyError("all answers are of raters who are left out, or are repeats")
    if not kept:
        raise StudyError(f"{study.folder} has no answers yet; hbr study serve collects them")
    sample = _Resampling(kept, resamples, seed)
    kind = study.config.kind
    results = _scores if kind == "scores" else _choices
    methods, pairs, warnings = results(kept, study.methods, sample)
    if len({a.rater for a in kept}) < 2:
        warnings.append("One rater: the intervals are about other images, not about other raters.")
    return StudyReport(
        kind=kind,
        title=study.config.title,
        question=study.config.asked,
        images=len({a.stem for a in kept}),
        methods=tuple(methods),
        pairs=tuple(pairs),
        raters=tuple(
            _rater(number, done, total, kind, answers, number in exclude)
            for number, (_, done, total) in raters.items()
        ),
        agreement=_agreement(kind, kept, study.methods, resamples, seed),
        resamples=resamples,
        seed=seed,
        hbr=str(study.facts.get("hbr", "")),
        warnings=tuple(warnings),
        answers=tuple(kept),
    )


class _Resampling:
    """The same draws of raters and images for every figure."""

    def __init__(self, answers: Sequence[Answer], resamples: int, seed: int) -> None:
        _, self._rater = np.unique([a.rater for a in answers], return_inverse=True)
        _, self._image = np.unique([a.stem for a in answers], return_inverse=True)
        self._resamples, self._seed = resamples, seed

    def interval(self, figure: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the interval of `figure(weights [b, a])` → [b, …]; NaN counts for nothing."""
        drawn = np.concatenate([figure(weights) for weights in self._weights()])
        gone = np.isnan(drawn).all(axis=0)
        low, high = np.nanpercentile(np.where(gone, 0.0, drawn), [2.5, 97.5], axis=0)
        return np.where(gone, np.nan, low), np.where(gone, np.nan, high)

    def _weights(self) -> Iterator[np.ndarray]:
        rng = np.random.default_rng(self._seed)
        for start in range(0, self._resamples, BLOCK):
            number = min(BLOCK, self._resamples - start)
            yield _draws(rng, self._rater, number) * _draws(rng, self._image, number)


def _draws(rng: np.random.Generator, index: np.ndarray, number: int) -> np.ndarray:
    """[number, a]: how often the one that each answer belongs to was drawn."""
    n = int(index.max()) + 1
    times = rng.multinomial(n, np.full(n, 1 / n), size=number).astype(np.float64)
    return times[:, index]


def _scores(
    answers: Sequence[Answer], methods: Sequence[str], sample: _Resampling
) -> tuple[list[MethodResult], list[PairResult], list[str]]:
    values = np.array([a.value for a in answers], np.float64)
    of = np.array([[a.methods[0] == m for m in methods] for a in answers], np.float64)  # [a, m]
    all_pairs = list(itertools.combinations(range(len(methods)), 2))
    first, second = (np.array([p[i] for p in all_pairs], dtype=int) for i in (0, 1))

    def means(weights: np.ndarray) -> np.ndarray:
        n = weights @ of
        return np.divide(
            weights @ (of * values[:, None]), n, out=np.full_like(n, np.nan), where=n > 0
        )

    def figures(weights: np.ndarray) -> np.ndarray:
        m = means(weights)
        return np.concatenate([m, m[:, first] - m[:, second]], axis=1)

    value = figures(np.ones((1, len(values))))[0]
    low, high = sample.interval(figures)
    estimates = _estimates(value, low, high)
    results = []
    for i, method in enumerate(methods):
        own = values[of[:, i] > 0]
        quartiles = tuple(map(float, np.percentile(own, [25, 50, 75]))) if len(own) else ()
        results.append(
            MethodResult(name=method, n=len(own), score=estimates[i], quartiles=quartiles)
        )
    n = of.sum(axis=0)
    pairs = [
        PairResult(methods[i], methods[j], int(n[i] + n[j]), estimates[len(methods) + k])
        for k, (i, j) in enumerate(all_pairs)
    ]
    return results, pairs, []


def _choices(
    answers: Sequence[Answer], methods: Sequence[str], sample: _Resampling
) -> tuple[list[MethodResult], list[PairResult], list[str]]:
    m = len(methods)
    won = np.zeros((len(answers), m, m))
    for row, answer in zip(won, answers, strict=True):
        winner, loser = answer.methods[answer.value], answer.methods[1 - answer.value]
        row[methods.index(winner), methods.index(loser)] = 1
    flat = won.reshape(len(answers), m * m)

    def strengths(wins: np.ndarray) -> np.ndarray:
        fitted = fit(wins if has_maximum(wins) else regularized(wins))
        return np.where((wins + wins.T).any(axis=1), fitted, np.nan)

    def figures(weights: np.ndarray) -> np.ndarray:
        wins = (weights @ flat).reshape(-1, m, m)
        games = wins + wins.transpose(0, 2, 1)
        totals = games.sum(axis=2)
        nan = np.full_like
        rates = np.divide(wins.sum(axis=2), totals, out=nan(totals, np.nan), where=totals > 0)
        shares = np.divide(wins, games, out=nan(games, np.nan), where=games > 0)
        fitted = np.stack([strengths(w) for w in wins])
        return np.concatenate([rates, fitted, shares.reshape(-1, m * m)], axis=1)

    value = figures(np.ones((1, len(answers))))[0]
    estimates = _estimates(value, *sample.interval(figures))
    wins = won.sum(axis=0)
    games = wins + wins.T
    results = [
        MethodResult(
            name=name, n=int(games[i].sum()), win_rate=estimates[i], strength=estimates[m + i]
        )
        for i, name in enumerate(methods)
    ]
    pairs = [
        PairResult(methods[i], methods[j], int(games[i, j]), estimates[2 * m + i * m + j])
        for i, j in itertools.combinations(range(m), 2)
    ]
    warnings = []
    if not has_maximum(wins):
        warnings.append(
            "Some methods never lost to the others, or were never compared with them: the "
            "strengths have no finite maximum, and rest on half a choice added both ways to "
            "every pair."
        )
    return results, pairs, warnings


def _agreement(
    kind: StudyKind, answers: Sequence[Answer], methods: Sequence[str], resamples: int, seed: int
) -> Agreement:
    raters = sorted({a.rater for a in answers})
    units = sorted({(a.stem, tuple(sorted(a.methods))) for a in answers})
    row = {rater: i for i, rater in enumerate(raters)}
    column = {unit: i for i, unit in enumerate(units)}
    values = np.full((len(raters), len(units)), np.nan)
    for a in answers:
        names = tuple(sorted(a.methods))
        value = a.value if kind == "scores" else names.index(a.methods[a.value])
        values[row[a.rater], column[a.stem, names]] = value
    domain = np.array(SCORES if kind == "scores" else (0, 1), np.float64)
    level: Level = "ordinal" if kind == "scores" else "nominal"
    each = coincidences(values, domain)  # [n, k, k]
    if kind == "choice":
        # which method of a pair is 0 and which is 1 is arbitrary: each way counts half
        each = (each + each[:, ::-1, ::-1]) / 2
    _, image = np.unique([stem for stem, _ in units], return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [
            alpha_of(np.tensordot(_draws(rng, image, 1)[0], each, axes=1), domain, level)
            for _ in range(resamples)
        ]
    )
    drawn = drawn[~np.isnan(drawn)]
    ends = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else np.full(2, np.nan)
    alpha = np.array([alpha_of(each.sum(axis=0), domain, level)])
    (estimate,) = _estimates(alpha, ends[:1], ends[1:])
    single, mean, complete = icc(values) if kind == "scores" else (np.nan, np.nan, 0)
    rated = int(((~np.isnan(values)).sum(axis=0) >= 2).sum())
    return Agreement(
        level=level,
        alpha=estimate,
        units=rated,
        icc_single=_number(single),
        icc_mean=_number(mean),
        icc_units=complete,
    )


def _rater(
    number: int,
    answered: int,
    total: int,
    kind: StudyKind,
    answers: Sequence[Answer],
    excluded: bool,
) -> RaterResult:
    own = {a.position: a for a in answers if a.rater == number}
    twice = [(own[a.repeat_of], a) for a in own.values() if a.repeat_of in own]
    if kind == "scores":
        same = [abs(a.value - b.value) for a, b in twice]
    else:
        same = [a.methods[a.value] == b.methods[b.value] for a, b in twice]
    seconds = [a.ms / 1000 for a in own.values() if a.ms is not None]
    left = [a.value == 0 for a in own.values()]
    return RaterResult(
        number=number,
        answered=answered,
        total=total,
        repeats=len(twice),
        steadiness=float(np.mean(same)) if same else None,
        seconds=float(np.median(seconds)) if seconds else None,
        left=float(np.mean(left)) if left and kind == "choice" else None,
        excluded=excluded,
    )


def _estimates(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[Estimate]:
    return [
        Estimate(_number(v), _number(a), _number(b))
        for v, a, b in zip(value, low, high, strict=True)
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
