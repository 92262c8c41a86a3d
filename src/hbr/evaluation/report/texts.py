"""The table of a run as Markdown, LaTeX and CSV."""

from __future__ import annotations

from collections.abc import Callable

from hbr.evaluation.report.tables import (
    NONE,
    Table,
    TableEntry,
    build,
    csv_text,
    differences,
    verdict_line,
)
from hbr.evaluation.results import BenchmarkRun
from hbr.pages import markdown_table
from hbr.pages import markdown_text as md

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": r"$-$", "–": "--", "±": r"$\pm$",
    "α": r"$\alpha$", "Δ": r"$\Delta$", "×": r"$\times$", "→": r"$\to$", "≤": r"$\le$",
}  # fmt: skip


def as_markdown(run: BenchmarkRun) -> str:
    """Title, table, differences, failures and where the numbers come from."""
    table = build(run)
    parts = [f"# {md(run.title or run.name)}"]
    parts += [f"**{md(warning)}**" for warning in run.warnings]
    parts += [md(line) for line in (run.layout.caption, verdict_line(run)) if line]
    parts.append(markdown_table(*_rows(table, _md_entry), numbers=True))
    parts += [md(note) for note in run.layout.notes]
    legend = "Bold: best, underlined: second, of what was measured."
    parts.append(f"{legend} In brackets: the published number, and the difference to it." if
                 table.has_paper else legend)  # fmt: skip
    if run.differences:
        parts += [f"## Against {md(run.differences[0].other)}", _differences(run)]
    if failures := list(failed(run)):
        rows = [[md(cell) for cell in row] for row in failures]
        parts += [
            "## Failures",
            markdown_table(["method", "data set", "picture", "why"], rows, numbers=True),
        ]
    parts += ["## Where the numbers come from", _provenance(run)]
    return "\n\n".join(parts) + "\n"


def as_latex(run: BenchmarkRun) -> str:
    r"""A `table` float; it needs `\usepackage{booktabs}`."""
    table = build(run)
    spec = "l" + "".join("r" * width for _, width in table.groups)
    lines = [
        r"% needs \usepackage{booktabs}",
        rf"% made by hbr {run.version}, commit {run.commit or 'not known'}, {run.started}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(run.layout.caption or run.title or run.name)}}}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
    ]
    if table.groups:
        heads = [rf"\multicolumn{{{width}}}{{c}}{{{_tex(name)}}}" for name, width in table.groups]
        lines.append(" & " + " & ".join(heads) + r" \\")
        start = 2
        for _, width in table.groups:
            lines.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
    heads = [_tex(column.heading) for column in table.columns]
    lines += [" & ".join([_tex(table.corner), *heads]) + r" \\", r"\midrule"]
    for line in table.lines:
        cells = [_tex_entry(entry) for entry in line.entries]
        lines.append(" & ".join([_tex(line.name), *cells]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    lines += [rf"\par\smallskip {_tex(note)}" for note in run.layout.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def as_csv(run: BenchmarkRun) -> str:
    """One line for each cell, numbers in full."""
    columns = ["data_set", "method", "metric", "metric_version", "better", "mean", "low", "high"]
    columns += ["n", "failed", "paper", "difference", "tolerance", "verdict", "error"]
    rows = []
    for c in run.cells:
        info = run.metric(c.metric)
        row = [c.data_set, c.method, c.metric, info.version, info.better, c.mean, c.low, c.high]
        row += [c.n, c.failed, c.paper, c.difference, c.tolerance, c.verdict, c.error]
        rows.append(row)
    return csv_text(columns, rows)


def failed(run: BenchmarkRun) -> list[tuple[str, str, str, str]]:
    """(method, data set, picture or empty, why) of all that went wrong, each once."""
    found: dict[tuple[str, str, str, str], None] = {}
    for method in run.methods:
        for data_set, why in method.error.items():
            found[method.name, data_set, "", why] = None
        for data_set, stems in method.failed.items():
            for stem, why in stems.items():
                found[method.name, data_set, stem, why] = None
    told = {(method, data_set, stem) for method, data_set, stem, _ in found}
    for row in run.rows:
        if row.error and (row.method, row.data_set, row.stem) not in told:
            found[row.method, row.data_set, row.stem, row.error] = None
        for metric, why in row.errors.items():
            found[row.method, row.data_set, row.stem, f"{metric}: {why}"] = None
    for cell in run.cells:
        if cell.error:
            found[cell.method, cell.data_set, "", f"{cell.metric}: {cell.error}"] = None
    return list(found)


def _rows(table: Table, show: Callable[[TableEntry], str]) -> tuple[list[str], list[list[str]]]:
    several = len(table.groups) > 1
    heads = [table.corner]
    for column in table.columns:
        heads.append(f"{md(column.group)}<br>{column.heading}" if several else column.heading)
    rows = [[md(line.name), *(show(entry) for entry in line.entries)] for line in table.lines]
    return heads, rows


def _md_entry(entry: TableEntry) -> str:
    text = entry.mean
    if entry.rank == "best":
        text = f"**{text}**"
    elif entry.rank == "second":
        text = f"<u>{text}</u>"
    if entry.paper:
        beside = ", ".join(part for part in (entry.difference, entry.verdict) if part)
        text += f" ({entry.paper}{'; ' if beside else ''}{md(beside)})"
    return text


def _tex_entry(entry: TableEntry) -> str:
    text = _tex(entry.mean)
    if entry.rank == "best":
        text = rf"\textbf{{{text}}}"
    elif entry.rank == "second":
        text = rf"\underline{{{text}}}"
    return text + (rf" {{\scriptsize({_tex(entry.paper)})}}" if entry.paper else "")


def _differences(run: BenchmarkRun) -> str:
    shown = ("metric", "mean", "interval", "n", "word")
    rows = [
        [md(d["method"]), md(d["data_set"]), *(d[name] for name in shown)] for d in differences(run)
    ]
    heads = ["method", "data set", "metric", "difference", "95 % interval", "pictures", ""]
    return markdown_table(heads, rows, numbers=True)


def _provenance(run: BenchmarkRun) -> str:
    lines = [f"- hbr {run.version}, commit {run.commit or 'not known'}, {run.started}"]
    if run.paper:
        lines.append(f"- published numbers: {md(run.paper)}")
    for data in run.data_sets:
        about = "; ".join(p for p in (data.edition or "", data.status) if p)
        lines.append(f"- {md(data.name)}: {data.n} pictures; {md(about) or NONE}; "
                     f"checksum `{data.checksum or NONE}`")  # fmt: skip
    lines += [f"- {md(info.heading)}: {md(info.source)}" for info in run.metrics]
    lines += [f"- {md(key)}: {md(str(value))}" for key, value in run.machine.items()]
    lines += [f"- {md(key)}: {md(str(value))}" for key, value in run.settings.items()]
    return "\n".join(lines)


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))
