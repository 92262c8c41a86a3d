"""Shared parts of HTML and Markdown pages: templates, style sheet, embedded images, tables."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2
    from PIL import Image


def environment(package: str) -> jinja2.Environment:
    """Return the templates of a package, with autoescaping and errors for undefined names.

    The variable `style` is the style sheet that all pages share. `page.html` is the frame of a
    report: it includes the package's `report.css` and, if there is `data`, its `report.js` after
    `page.js`, and the style of the slider between two pictures.
    """
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda name: text("hbr" if name == "page.html" else package, name)
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.globals["style"] = _trusted(text("hbr", "style.css"))
    made.globals["slider"] = _trusted(text("hbr", "slider.css"))
    made.globals["script"] = _trusted(text("hbr", "page.js"))
    made.globals["asset"] = lambda name: _trusted(text(package, name))
    return made


def text(package: str, name: str) -> str:
    """Read a text file of a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


def _trusted(source: str) -> Any:
    """Mark text as safe to include in a page without escaping."""
    from markupsafe import Markup

    return Markup(source)


def script_data(value: object) -> Any:
    """Plain values as JSON for a script element of a page, which nothing in them can end."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _trusted(text.replace("<", "\\u003c"))


def data_uri(picture: Image.Image, *, edge: int, quality: int = 82) -> str:
    """Return an RGB picture as a WebP `data:` URI with at most `edge` pixels along each side."""
    if max(picture.size) > edge:
        picture = picture.copy()
        picture.thumbnail((edge, edge))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def markdown_table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False
) -> str:
    """Return a table in Markdown.

    Args:
        heads, rows: cells in Markdown; line breaks become spaces, and `|` is escaped.
        numbers: whether all columns but the first are right-aligned.
    """
    rest = len(heads) - 1
    rule = "|---" + "|--:" * rest + "|" if numbers else "| ---" + " | ---" * rest + " |"
    first, *others = map(_markdown_row, [heads, *rows])
    return "\n".join([first, rule, *others])


def _markdown_row(cells: Sequence[str]) -> str:
    whole = (re.sub(r"(?<!\\)[|]", r"\\|", " ".join(cell.split())) for cell in cells)
    return f"| {' | '.join(whole)} |"


def markdown_text(text: str) -> str:
    """Escape plain text for Markdown, on one line; what stands between two backticks is code."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    parts[::2] = [re.sub(r"[\\|*_`<[]", r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)
