"""Pages of web applications, from files of the package alone; that of `hbr ui` is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from hbr.pages import environment, text
from hbr.version import __version__


def add_page(app: FastAPI) -> None:
    """Add the page of `hbr ui`, its style sheet and its script."""
    add_page_of(app, __package__, "ui", ["ui-people.js", "ui.js"], version=__version__)


def add_page_of(
    app: FastAPI, package: str, name: str, scripts: Sequence[str], **values: Any
) -> None:
    """Add a page at /, its style sheet and its script.

    Args:
        app: gets the routes.
        package: holds `name`.html, a template, `name`.css, which follows the style of all pages,
            and the scripts.
        name: of the page.
        scripts: parts of the script, in order.
        **values: of the template.
    """
    page = environment(package).get_template(f"{name}.html").render(**values)
    style = text("hbr", "style.css") + text(package, f"{name}.css")
    script = "".join(text(package, part) for part in scripts)

    @app.get("/", include_in_schema=False)
    def show() -> Response:
        return HTMLResponse(page)

    @app.get(f"/{name}.css", include_in_schema=False)
    def show_style() -> Response:
        return Response(style, media_type="text/css")

    @app.get(f"/{name}.js", include_in_schema=False)
    def show_script() -> Response:
        return Response(script, media_type="text/javascript")
