"""The web application of a user study; raters never receive the names of the methods."""

from __future__ import annotations

import dataclasses
from socket import socket
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field

from hbr.evaluation.study.store import Study, StudyError
from hbr.service.guard import Guard
from hbr.service.page import add_page_of

# an answer has some hundred bytes
_MAX_BYTES, _SECONDS = 65_536, 60.0

Code = Annotated[str, Field(max_length=40)]


class _Join(BaseModel):
    code: Code


class _Where(BaseModel):
    code: Code
    position: int | None = None


class _Answer(BaseModel):
    code: Code
    trial: Annotated[str, Field(max_length=40)]
    position: int
    value: int
    ms: Annotated[int | None, Field(ge=0, le=2**31)] = None


def create_app(study: Study) -> FastAPI:
    """Create the application that serves a study."""
    app = FastAPI(title=study.config.title, docs_url=None, redoc_url=None, openapi_url=None)

    # a proxy before it may change the name under which raters reach it
    app.add_middleware(Guard, max_bytes=_MAX_BYTES, seconds=_SECONDS, any_origin=True)

    @app.exception_handler(StudyError)
    async def refuse(_: Request, error: StudyError) -> Response:
        return JSONResponse({"detail": str(error)}, status_code=error.http_status)

    _add_pages(app, study)
    _add_answers(app, study)
    return app


def _add_pages(app: FastAPI, study: Study) -> None:
    """Add the routes of the page, its style sheet and script, and the images."""
    add_page_of(app, __package__, "study", ["study.js"], config=study.config)

    @app.get("/images/{image}.png")
    def show_image(image: str) -> Response:
        path = study.image_path(image)
        if path is None:
            return JSONResponse({"detail": "no such image"}, status_code=404)
        # cached: raters go back and forth, and the next trial's images are preloaded
        return FileResponse(
            path, media_type="image/png", headers={"Cache-Control": "private, max-age=86400"}
        )


def _add_answers(app: FastAPI, study: Study) -> None:
    """Add the routes for joining, moving between trials and answering."""

    @app.post("/api/join")
    def join(body: _Join) -> Any:
        study.join(body.code)
        return _place(study, body.code)

    @app.post("/api/place")
    def place(body: _Where) -> Any:
        return _place(study, body.code, body.position)

    @app.post("/api/answer")
    def answer(body: _Answer) -> Any:
        study.answer(body.code, body.trial, body.value, body.ms)
        return _place(study, body.code, body.position + 1)


def _place(study: Study, code: str, position: int | None = None) -> dict[str, Any]:
    return dataclasses.asdict(study.place(code, position))


def serve(study: Study, sock: socket) -> None:
    """Serve until Ctrl-C or SIGTERM; every confirmed answer has been saved to disk."""
    config = uvicorn.Config(create_app(study), log_level="warning", timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[sock])
