"""The page of `hbr ui`: the service in a browser, from files of the package alone."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, Response

from hbr.pages import environment, text
from hbr.version import __version__


def add_page(app: FastAPI) -> None:
    """Add the page, its style sheet and its script."""
    page = environment(__package__).get_template("ui.html").render(version=__version__)
    style = text("hbr", "style.css") + text(__package__, "ui.css")
    script = text(__package__, "ui-people.js") + text(__package__, "ui.js")

    @app.get("/", include_in_schema=False)
    def show() -> Response:
        return HTMLResponse(page)

    @app.get("/ui.css", include_in_schema=False)
    def show_style() -> Response:
        return Response(style, media_type="text/css")

    @app.get("/ui.js", include_in_schema=False)
    def show_script() -> Response:
        return Response(script, media_type="text/javascript")
