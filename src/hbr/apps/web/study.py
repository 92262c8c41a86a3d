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

    def place_of(code: str, position: int | None = None) -> dict[str, Any]:
        return dataclasses.asdict(study.place(code, position))

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

    @app.post("/api/join")
    def join(body: _Where) -> Any:
        study.join(body.code)
        return place_of(body.code)

    @app.post("/api/place")
    def place(body: _Where) -> Any:
        return place_of(body.code, body.position)

    @app.post("/api/answer")
    def answer(body: _Answer) -> Any:
        study.answer(body.code, body.trial, body.value, body.ms)
        return place_of(body.code, body.position + 1)

    return app


def serve(study: Study, sock: socket) -> None:
    """Serve until Ctrl-C or SIGTERM; every confirmed answer has been saved to disk."""
    config = uvicorn.Config(create_app(study), log_level="warning", timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[sock])
