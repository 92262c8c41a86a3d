"""The picture of a study: box plot of scores, or win rates and strengths."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hbr.evaluation.study.analysis import Estimate, MethodResult, StudyReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholders for the colours of the page that embeds the SVG; see `inline_svg`.
INK, QUIET, ACCENT = "#1d1f21", "#5e6266", "#1f5f8b"


def draw(report: StudyReport) -> Figure:
    """Best method on top. Boxes: quartiles and the median of single scores; points: means.

    For choices, win rates are on the left and Bradley–Terry strengths on the right. Lines through
    points are 95 % intervals.
    """
    from matplotlib.figure import Figure

    methods = ranked(report)[::-1]
    figure = Figure(figsize=(7.2, 1.1 + 0.45 * len(methods)), layout="constrained")
    if report.kind == "scores":
        axes = figure.subplots()
        _boxes(axes, report, methods)
    else:
        axes, other = figure.subplots(1, 2, sharey=True, gridspec_kw={"wspace": 0.08})
        _points(axes, [m.win_rate for m in methods])
        axes.set(xlim=(-0.02, 1.02), xlabel="share of comparisons won")
        axes.axvline(0.5, color=QUIET, linewidth=0.8, linestyle=":")
        _points(other, [m.strength for m in methods])
        other.set(xlabel="strength (Bradley–Terry, log)")
        other.axvline(0, color=QUIET, linewidth=0.8, linestyle=":")
        _quieten(other)
        other.tick_params(left=False)
    axes.set_yticks(range(len(methods)), [_plain(m.name) for m in methods])
    axes.set_ylim(-0.6, len(methods) - 0.4)
    _quieten(axes)
    return figure


def ranked(report: StudyReport) -> list[MethodResult]:
    """The methods, best first; those without answers last."""

    def height(result: MethodResult) -> float:
        estimate = result.score if report.kind == "scores" else result.strength
        missing = estimate is None or estimate.value is None or not result.n
        return float("-inf") if missing else float(estimate.value)  # type: ignore[union-attr, arg-type]

    return sorted(report.methods, key=height, reverse=True)


def svg(figure: Figure) -> str:
    """The figure as SVG with text as text; the same figure gives the same bytes."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "hbr"}), _any_letters():
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    return buffer.getvalue()


def inline_svg(source: str) -> str:
    """The `<svg>` element alone, in the colours and the type of the page around it."""
    metadata = slice(source.index("<metadata>"), source.index("</metadata>") + len("</metadata>"))
    element = source.replace(source[metadata], "", 1)
    element = element[element.index("<svg") :]
    for colour, name in ((INK, "ink"), (QUIET, "quiet"), (ACCENT, "accent")):
        element = element.replace(colour, f"var(--{name})")
    return element


def png(figure: Figure) -> bytes:
    """The figure as PNG on white, 200 dots per inch; letters that its font lacks are boxes."""
    buffer = io.BytesIO()
    with _any_letters():
        figure.savefig(
            buffer, format="png", dpi=200, facecolor="white", metadata={"Software": None}
        )
    return buffer.getvalue()


def _boxes(axes: Axes, report: StudyReport, methods: list[MethodResult]) -> None:
    scores: dict[str, list[int]] = {m.name: [] for m in methods}
    for answer in report.answers:
        scores[answer.methods[0]].append(answer.value)
    line = {"color": INK, "linewidth": 1.1}
    axes.boxplot(
        list(scores.values()),
        positions=list(range(len(methods))),
        orientation="horizontal",
        widths=0.5,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": INK, "linewidth": 2.4},
        flierprops={"marker": ".", "markersize": 4, "markeredgecolor": QUIET},
        manage_ticks=False,
    )
    _points(axes, [m.score for m in methods])
    axes.set(xlim=(-0.1, 5.1), xlabel="score (0 worst, 5 best)")


def _points(axes: Axes, estimates: list[Estimate | None]) -> None:
    for y, estimate in enumerate(estimates):
        if estimate is None or estimate.value is None:
            continue
        if estimate.low is not None and estimate.high is not None:
            ends = [estimate.low, estimate.high]
            axes.plot(ends, [y, y], color=ACCENT, linewidth=2.2, zorder=4)
        axes.plot(estimate.value, y, "o", color=ACCENT, markersize=6, zorder=5)


def _quieten(axes: Axes) -> None:
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(QUIET)
    axes.tick_params(colors=INK, labelsize=9, left=False)
    axes.xaxis.label.set(color=QUIET, size=9)


@contextmanager
def _any_letters() -> Iterator[None]:
    """No word about letters that matplotlib's font lacks: in the SVG they are text all the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph ")
        yield


def _plain(name: str) -> str:
    return name.replace("$", r"\$")  # not mathematics
