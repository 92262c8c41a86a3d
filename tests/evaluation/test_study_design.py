"""Who is shown what: balance, order, and what chance may depend on."""

import itertools
from collections import Counter

import pytest

from hbr.config import ConfigError
from hbr.evaluation.study.design import StudyConfig, Trial, assign, treatments

STEMS = [f"photo{i}" for i in range(7)]
METHODS = ["a", "b", "c", "d"]


def run(config: StudyConfig, raters: int) -> tuple[list[list[Trial]], Counter]:
    shown: Counter = Counter()
    lists = []
    for rater in range(raters):
        lists.append(assign(config, STEMS, METHODS, shown, rater))
        shown.update((t.stem, t.methods) for t in lists[-1] if t.repeat_of is None)
    return lists, shown


@pytest.mark.parametrize("kind", ["scores", "choice"])
@pytest.mark.parametrize("per_rater", [5, 12, 17])
def test_every_cell_is_shown_equally_often(kind, per_rater):
    lists, shown = run(StudyConfig(kind=kind, per_rater=per_rater), 23)
    cells = Counter()
    for (stem, methods), times in shown.items():
        cells[stem, tuple(sorted(methods))] += times
    times = [cells[s, t] for s in STEMS for t in treatments(kind, METHODS)]
    assert sum(times) == 23 * per_rater
    assert max(times) - min(times) <= 1
    for trials in lists:  # none twice, and each rater sees the treatments equally often
        own = Counter(tuple(sorted(t.methods)) for t in trials)
        each = [own[t] for t in treatments(kind, METHODS)]
        assert len({(t.stem, tuple(sorted(t.methods))) for t in trials}) == per_rater
        assert max(each) - min(each) <= 2


def test_pairs_stand_both_ways_round_equally_often():
    _, shown = run(StudyConfig(kind="choice", per_rater=12), 23)
    ways: Counter = Counter()
    for (_, sides), times in shown.items():
        ways[sides] += times
    for pair in treatments("choice", METHODS):
        assert abs(ways[pair] - ways[pair[::-1]]) <= 1
    left = Counter()
    for sides, times in ways.items():
        left[sides[0]] += times
    assert max(left.values()) - min(left.values()) <= len(METHODS) - 1


def test_the_order_is_chance_by_seed_and_rater():
    first = assign(StudyConfig(seed=1), STEMS, METHODS, {}, 0)
    assert first == assign(StudyConfig(seed=1), STEMS, METHODS, {}, 0)
    others = [
        assign(StudyConfig(seed=2), STEMS, METHODS, {}, 0),
        assign(StudyConfig(seed=1), STEMS, METHODS, {}, 1),
    ]
    for other in others:
        assert other != first
        assert set(other) == set(first)
    assert len(first) == len(STEMS) * len(METHODS)


@pytest.mark.parametrize("rater", range(10))
def test_an_image_never_comes_twice_running(rater):
    config = StudyConfig(kind="choice", per_rater=20, repeats=4)
    trials = assign(config, STEMS, METHODS, {}, rater)
    assert all(a.stem != b.stem for a, b in itertools.pairwise(trials))


@pytest.mark.parametrize("kind", ["scores", "choice"])
def test_repeats_come_later_and_swap_sides(kind):
    config = StudyConfig(kind=kind, per_rater=12, repeats=4)
    for rater in range(10):
        trials = assign(config, STEMS, METHODS, {}, rater)
        again = [(i, t) for i, t in enumerate(trials) if t.repeat_of is not None]
        assert len(trials) == 16
        assert len({t.repeat_of for _, t in again}) == 4
        for i, trial in again:
            assert i > trial.repeat_of
            before = trials[trial.repeat_of]
            assert before.repeat_of is None
            assert (before.stem, before.methods) == (trial.stem, trial.methods[::-1])


@pytest.mark.parametrize(
    ("field", "value"), [("kind", "rank"), ("per_rater", 0), ("repeats", -1), ("title", " ")]
)
def test_a_wrong_setting_is_named(field, value):
    with pytest.raises(ConfigError, match=field):
        StudyConfig(**{field: value})
