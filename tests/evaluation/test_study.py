"""Making a study, answering it, and its report."""

import csv
import json
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from study_fixtures import CODE, METHODS, fill, make_folders, methods_of, new_code

from hbr.evaluation.pairing import PairingError, StemRules
from hbr.evaluation.study.analysis import summarise
from hbr.evaluation.study.creation import StudyPhotos, create
from hbr.evaluation.study.design import StudyConfig
from hbr.evaluation.study.store import PATIENCE_S, Study, StudyError
from hbr.evaluation.study.writing import write_report
from hbr.image import PhotoError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return make_folders(tmp_path_factory.mktemp("photos"))


def make(out: Path, methods: dict[str, Path], config: StudyConfig, **photos) -> Study:
    return create(out, StudyPhotos(methods=methods, **photos), config)


def new(out: Path, folders: dict[str, Path], **settings) -> Study:
    lq, hq = settings.pop("lq", None), settings.pop("hq", None)
    methods = {name: folders[name] for name in METHODS}
    return make(out, methods, StudyConfig(**settings), lq=lq, hq=hq)


def test_photos_are_taken_in_without_metadata_under_random_ids(tmp_path, folders):
    study = new(tmp_path / "s", folders, lq=folders["lq"], hq=folders["hq"])
    files = sorted((tmp_path / "s" / "images").iterdir())
    assert len(files) == 4 * 5
    for stored in study._images.values():
        path = study.image_path(stored.id)
        with Image.open(path) as picture:
            picture.load()
            assert (picture.size, picture.mode, picture.info) == ((64, 64), "RGB", {})
        folder = folders[stored.method or stored.role]
        source = Image.open(folder / f"{stored.stem}.png")
        if stored.role != "lq":
            assert np.array_equal(np.asarray(Image.open(path)), np.asarray(source))
    assert {f.stem for f in files} == {s.id for s in study._images.values()}
    new(tmp_path / "t", folders)
    assert not {f.name for f in files} & {f.name for f in (tmp_path / "t" / "images").iterdir()}


def test_what_the_browser_gets_names_nothing(tmp_path, folders):
    study = new(tmp_path / "s", folders, lq=folders["lq"], hq=folders["hq"], kind="choice")
    study.join(CODE)
    said = repr(study.place(CODE))
    assert not [word for word in (*METHODS, "stem0", "stem1", str(tmp_path)) if word in said]


def test_a_rater_comes_back_to_where_they_were(tmp_path, folders):
    study = new(tmp_path / "s", folders, repeats=2)
    number = study.join(CODE)
    first = study.place(CODE)
    assert (first.answered, first.total, first.trial.position) == (0, 14, 0)
    study.answer(CODE, first.trial.id, 3)
    again = Study.open(tmp_path / "s")
    assert again.join(CODE) == number
    second = again.place(CODE)
    assert (second.answered, second.trial.position) == (1, 1)
    assert first.trial.ahead == second.trial.images
    earlier = again.place(CODE, 0).trial
    assert (earlier.id, earlier.answer) == (first.trial.id, 3)
    assert again.place(CODE, 9).trial.position == 1  # no skipping ahead


def test_the_same_answer_twice_is_one_and_another_replaces_it(tmp_path, folders):
    study = new(tmp_path / "s", folders)
    study.join(CODE)
    trial = study.place(CODE).trial
    for _ in range(3):
        study.answer(CODE, trial.id, 4, 900)
    assert [(a.value, a.ms) for a in study.answers()] == [(4, 900)]
    with sqlite3.connect(study.folder / "study.sqlite") as db:
        assert db.execute("SELECT revised FROM answers").fetchall() == [(0,)]
    study.answer(CODE, trial.id, 1, 500)
    assert [(a.value, a.ms) for a in study.answers()] == [(1, 500)]


def test_answers_that_do_not_fit_are_refused(tmp_path, folders):
    study = new(tmp_path / "s", folders, kind="choice")
    study.join(CODE)
    trial = study.place(CODE).trial
    with pytest.raises(StudyError, match="0 to 1"):
        study.answer(CODE, trial.id, 2)
    other = new_code()
    study.join(other)
    with pytest.raises(StudyError, match="no such trial"):
        study.answer(other, trial.id, 1)
    with pytest.raises(StudyError, match="abcd-efgh-2345"):
        study.join("' OR 1=1 --")
    with pytest.raises(StudyError, match="start again"):
        study.place(new_code())
    assert study.answers() == []


def test_many_raters_at_once(tmp_path, folders):
    study = new(tmp_path / "s", folders, per_rater=6)
    errors = []

    def rate() -> None:
        try:
            fill(study, raters=2)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=rate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    answers = study.answers()
    assert len(answers) == 12 * 6
    times = [
        sum((a.stem, a.methods) == (stem, (m,)) for a in answers)
        for stem in study.stems
        for m in METHODS
    ]
    assert set(times) == {6}


def test_what_a_rater_leaves_open_goes_to_later_ones(tmp_path, folders):
    study = new(tmp_path / "s", folders, per_rater=6)
    study.join(CODE)  # takes half of the cells, answers none, is away for long
    with sqlite3.connect(study.folder / "study.sqlite") as db:
        db.execute("UPDATE raters SET seen = seen - ?", (PATIENCE_S + 1,))
    fill(study, raters=2)
    cells = {(a.stem, a.methods) for a in study.answers()}
    assert len(cells) == 12


@pytest.mark.parametrize("kind", ["scores", "choice"])
def test_the_report_finds_what_raters_prefer(tmp_path, folders, kind):
    study = new(tmp_path / "s", folders, kind=kind, repeats=3, title="<b>Photos</b>")
    fill(study, raters=6)
    report = summarise(study, resamples=300)
    by_name = {m.name: m for m in report.methods}
    key = "score" if kind == "scores" else "strength"
    values = [getattr(by_name[name], key) for name in METHODS]  # from sharp to blurred
    assert values[0].value > values[1].value > values[2].value
    assert all(v.low <= v.value <= v.high for v in values)
    (pair,) = [p for p in report.pairs if (p.first, p.second) == ("sharpnet", "greynet")]
    assert pair.value.low > (0 if kind == "scores" else 0.5)
    assert 0.1 < report.agreement.alpha.value < 1
    assert [r.repeats for r in report.raters] == [3] * 6
    assert all(r.seconds == pytest.approx(1, abs=0.01) for r in report.raters)

    files = write_report(report, tmp_path / "r")
    names = {"report.html", "report.md", "report.json", "methods.csv", "answers.csv"}
    assert {f.name for f in files} == names | {"plot.svg", "plot.png"}
    assert json.loads((tmp_path / "r" / "report.json").read_text())["methods"]
    page = (tmp_path / "r" / "report.html").read_text()
    assert "<b>Photos" not in page
    assert "&lt;b&gt;Photos" in page
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "").replace(
        "http://www.w3.org/1999/xlink", ""
    )
    Image.open(tmp_path / "r" / "plot.png").verify()
    rows = list(csv.DictReader((tmp_path / "r" / "answers.csv").open()))
    assert len(rows) == 6 * 12
    before = {f: f.read_bytes() for f in files}
    write_report(summarise(study, resamples=300), tmp_path / "r")
    assert before == {f: f.read_bytes() for f in files}


def test_means_and_wins_are_those_of_the_answers(tmp_path, folders):
    study = new(tmp_path / "s", folders, kind="choice")
    fill(study, raters=3)
    report = summarise(study, resamples=20)
    for pair in report.pairs:
        of = [a for a in study.answers() if set(a.methods) == {pair.first, pair.second}]
        chosen = [a.methods[a.value] for a in of]
        assert pair.n == len(of) == 12
        assert pair.value.value == pytest.approx(chosen.count(pair.first) / len(of))
    scored = new(tmp_path / "t", folders)
    fill(scored, raters=3)
    report = summarise(scored, resamples=20, exclude=[1])
    for method in report.methods:
        of = [a.value for a in scored.answers() if a.methods == (method.name,) and a.rater != 1]
        assert method.score.value == pytest.approx(np.mean(of))
        assert (method.n, method.quartiles[1]) == (8, np.median(of))
    assert [r.excluded for r in report.raters] == [False, True, False]


def test_intervals_cover_the_truth_about_as_often_as_they_say(tmp_path, folders):
    """Raters and images each with a shift of their own: what a plain bootstrap would overlook."""
    from hbr.evaluation.study.analysis import _Resampling
    from hbr.evaluation.study.store import Answer

    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        shift_r, shift_i = rng.normal(0, 1, 8), rng.normal(0, 1, 12)
        grid = 2.5 + shift_r[:, None] + shift_i[None, :] + rng.normal(0, 0.5, (8, 12))
        answers = [
            Answer(rater=r, position=i, stem=str(i), methods=("m",), value=0, ms=None, at=0.0)
            for r in range(8)
            for i in range(12)
        ]
        values = grid.ravel()

        def mean(weights, values=values):
            return (weights @ values / weights.sum(axis=1))[:, None]

        low, high = _Resampling(answers, 200, trial).interval(mean)
        covered += int(low[0] <= 2.5 <= high[0])
    assert covered >= 51  # 95 % of 60 is 57


def test_one_rater_is_warned_of(tmp_path, folders):
    study = new(tmp_path / "s", folders)
    with pytest.raises(StudyError, match="no answers yet"):
        summarise(study)
    fill(study, raters=1)
    report = summarise(study, resamples=20)
    assert "One rater" in report.warnings[0]
    assert report.agreement.alpha.value is None
    write_report(report, tmp_path / "r")
    with pytest.raises(StudyError, match="no rater 7"):
        summarise(study, exclude=[7])
    with pytest.raises(StudyError, match="all answers are of raters who are left out"):
        summarise(study, exclude=[0])


def test_names_in_any_letters_are_drawn_without_a_word(tmp_path, folders, recwarn):
    odd = "日本 $x_1$"
    study = make(tmp_path / "s", {odd: folders["sharpnet"]}, StudyConfig(per_rater=1))
    study.join(CODE)
    study.answer(CODE, study.place(CODE).trial.id, 3)
    write_report(summarise(study, resamples=20), tmp_path / "r")
    assert odd in (tmp_path / "r" / "plot.svg").read_text()
    assert not recwarn.list


def test_bad_folders_make_no_study(tmp_path, folders):
    out = tmp_path / "s"
    methods = {name: folders[name] for name in METHODS}
    extra = make_folders(tmp_path / "more", stems=5)
    with pytest.raises(StudyError, match=r"lacks stem4; --common"):
        make(out, {**methods, "more": extra["hq"]}, StudyConfig())
    more = {**methods, "m": extra["hq"]}
    assert len(make(tmp_path / "c", more, StudyConfig(), in_common=True).stems) == 4
    with pytest.raises(StudyError, match="32x32, the first method's is 64x64"):
        make(out, {**methods, "small": folders["lq"]}, StudyConfig())
    with pytest.raises(StudyError, match="2 methods or more"):
        make(out, {"a": folders["hq"]}, StudyConfig(kind="choice"))
    with pytest.raises(PairingError, match="does not exist"):
        make(out, {"a": tmp_path / "nowhere"}, StudyConfig())
    broken = extra["lq"] / "stem0.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(PhotoError, match="no study was made"):
        make(out, methods, StudyConfig(), lq=extra["lq"])
    for path in extra["hq"].iterdir():
        path.rename(path.with_name(f"{path.stem}_out.png"))
    with pytest.raises(StudyError, match="--strip"):
        make(out, {**methods, "more": extra["hq"]}, StudyConfig())
    rules = StemRules(("_out",))
    assert make(out, {"m": extra["hq"]}, StudyConfig(), rules=rules).stems[0] == "stem0"
    with pytest.raises(StudyError, match="not empty"):
        make(out, methods, StudyConfig())
    assert {p.name for p in tmp_path.iterdir()} == {"s", "c", "more"}


def test_what_is_no_study_is_said(tmp_path):
    with pytest.raises(StudyError, match="hbr study new"):
        Study.open(tmp_path)
    (tmp_path / "study.sqlite").write_bytes(b"no database " * 100)
    with pytest.raises(StudyError, match="is not a study"):
        Study.open(tmp_path)


def test_left_and_right_reach_the_figures_as_shown(tmp_path, folders):
    """Whoever always takes the left side is told so, and prefers nothing."""
    study = new(tmp_path / "s", folders, kind="choice")
    for code in (new_code(), new_code()):
        study.join(code)
        while (trial := study.place(code).trial) is not None:
            assert len(methods_of(study, trial.images)) == 2
            study.answer(code, trial.id, 0)
    report = summarise(study, resamples=50)
    assert [r.left for r in report.raters] == [1.0, 1.0]
    assert all(0.4 <= p.value.value <= 0.6 for p in report.pairs)
