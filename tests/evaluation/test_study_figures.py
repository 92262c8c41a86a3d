"""The statistics of a study against published examples and calculations done another way."""

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize

from hbr.evaluation.study.agreement import alpha_of, coincidences, icc
from hbr.evaluation.study.analysis import _agreement, _choices, _Resampling
from hbr.evaluation.study.bradley_terry import fit, has_maximum, regularized
from hbr.evaluation.study.store import Answer

NAN = np.nan
# Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), part C: 4 observers, 12 units,
# values missing. Its nominal α is .743, ordinal .815, interval .849.
KRIPPENDORFF_C = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


def krippendorff_alpha(values: np.ndarray, level: str) -> float:
    """α of [m, n] values, NaN where there is none."""
    domain = np.unique(values[~np.isnan(values)])
    return alpha_of(coincidences(values, domain).sum(axis=0), domain, level)


@pytest.mark.parametrize(
    ("level", "published"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_alpha_is_krippendorffs(level, published):
    assert krippendorff_alpha(KRIPPENDORFF_C, level) == pytest.approx(published, abs=5e-4)


def alpha_by_definition(values: np.ndarray) -> float:
    """1 − observed / expected disagreement over single pairs of values, ordinal differences."""
    units = [column[~np.isnan(column)] for column in values.T]
    units = [unit for unit in units if len(unit) > 1]
    pooled = np.concatenate(units)

    def delta(a: float, b: float) -> float:
        low, high = min(a, b), max(a, b)
        between = sum((pooled == g).sum() for g in np.unique(pooled) if low <= g <= high)
        return (between - ((pooled == low).sum() + (pooled == high).sum()) / 2) ** 2

    observed = sum(
        delta(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    ) / len(pooled)
    pairs = list(itertools.permutations(pooled, 2))
    expected = sum(delta(a, b) for a, b in pairs) / len(pairs)
    return 1 - observed / expected


def test_alpha_is_its_definition_on_incomplete_scores():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (5, 14)).astype(float)
    values[rng.random(values.shape) < 0.3] = NAN
    assert krippendorff_alpha(values, "ordinal") == pytest.approx(alpha_by_definition(values))


def test_alpha_of_no_disagreement_and_of_nothing():
    same = np.array([[0, 3, 5], [0, 3, 5.0]])
    assert krippendorff_alpha(same, "ordinal") == 1
    assert np.isnan(krippendorff_alpha(np.full((2, 3), 4.0), "ordinal"))
    assert np.isnan(krippendorff_alpha(np.array([[1, NAN], [NAN, 2]]), "ordinal"))


def test_icc_is_shrouts_and_fleisss():
    # Psychological Bulletin 86 (1979), table 2: ICC(2,1) = .29, ICC(2,4) = .62
    targets = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    values = np.array(targets, float).T
    single, mean, units = icc(values)
    assert (round(single, 2), round(mean, 2), units) == (0.29, 0.62, 6)
    with_gap = np.column_stack([values, [1, 2, NAN, 4]])
    assert icc(with_gap) == (single, mean, 6)


# Citations among Biometrika, Comm. Statist., JASA, JRSS-B 1987-1988 (Stigler, Statistical Science
# 9, 1994), row cited by column; strengths as in Agresti, Categorical Data Analysis.
CITED = np.array(
    [[0, 730, 498, 221], [33, 0, 68, 17], [320, 813, 0, 142], [284, 276, 325, 0]], float
)


def test_strengths_are_those_published_for_stiglers_citations():
    found = fit(CITED)
    assert found - found[0] == pytest.approx([0, -2.94907, -0.47957, 0.26895], abs=1e-5)
    assert found.sum() == pytest.approx(0, abs=1e-9)


def test_strengths_are_where_the_likelihood_is_highest():
    rng = np.random.default_rng(1)
    wins = rng.integers(1, 9, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)

    def loss(free: np.ndarray) -> float:
        s = np.append(free, 0.0)
        return float((wins * np.log1p(np.exp(s[None, :] - s[:, None]))).sum())

    other = np.append(minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8}).x, 0)
    assert fit(wins) == pytest.approx(other - other.mean(), abs=1e-5)


def test_one_who_never_lost_has_no_finite_strength():
    wins = np.array([[0, 3, 3], [0, 0, 2], [0, 1, 0.0]])
    assert not has_maximum(wins)
    assert np.isnan(fit(wins)).all()
    found = fit(regularized(wins))
    assert found[0] > found[1] > found[2]
    # two camps that were never compared
    assert not has_maximum(np.kron(np.eye(2), np.array([[0, 1], [1, 0]])))


def choices(better: list[str], raters: int = 3, images: int = 20, slips: float = 0.05):
    """Answers of raters who choose the method that comes first in `better`, but for slips."""
    rng = np.random.default_rng(0)
    answers = []
    for rater, image in itertools.product(range(raters), range(images)):
        for pair in itertools.combinations(better, 2):
            sides = pair if (rater + image) % 2 else pair[::-1]
            chosen = sides.index(pair[int(rng.random() < slips)])
            answers.append(
                Answer(
                    rater=rater,
                    position=len(answers),
                    stem=str(image),
                    methods=sides,
                    value=chosen,
                    ms=None,
                    at=0.0,
                )
            )
    return answers


def test_agreement_on_choices_does_not_depend_on_names():
    def alpha(better: list[str], slips: float = 0.05) -> float:
        return _agreement("choice", choices(better, slips=slips), "ABC", 10, 0).alpha.value

    assert alpha(["A", "B", "C"]) == alpha(["B", "C", "A"]) == alpha(["C", "B", "A"]) > 0.7
    assert alpha(["A", "B", "C"], slips=0) == 1
    assert abs(alpha(["A", "B", "C"], slips=0.5)) < 0.2


def test_a_method_that_was_never_compared_has_no_strength():
    answers = choices(["A", "B"])
    (a, b, c), _, warnings = _choices(answers, ["A", "B", "C"], _Resampling(answers, 20, 0))
    assert a.strength.value > 0 > b.strength.value
    assert (c.strength.value, c.strength.low, c.win_rate.value) == (None, None, None)
    assert "never compared" in warnings[0]
