"""The HTTP API: upload a photo, follow its job, fetch the result."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, Form, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool

from hbr.config import check
from hbr.errors import HbrError
from hbr.image import read_photo
from hbr.image.reading import photo_size
from hbr.restoration.batch.jobs import forced_suffix
from hbr.restoration.people.locating import auto_detector
from hbr.restoration.settings import (
    PeopleChoice,
    RestoreSettings,
    parse_box,
    parse_person_fidelity,
    parse_persons,
)
from hbr.service.counters import ServiceCounters
from hbr.service.guard import Guard
from hbr.service.jobs import JobQueue, Load, NoSuchJobError, Order, PhotoJob, ServiceLimits
from hbr.service.schemas import (
    OWN,
    ArchiveOrder,
    HealthView,
    JobView,
    ModelView,
    RestoreRequest,
)
from hbr.version import __version__

_ENDED = {"done", "failed", "cancelled"}
_PREVIEW_EDGE = 4096


class Service:
    """What the routes share: the queue, the models, the limits and the counters."""

    def __init__(
        self,
        folder: Path,
        models: tuple[ModelView, ...],
        limits: ServiceLimits,
        load: Load,
    ) -> None:
        self.models, self.limits = models, limits
        self.counters = ServiceCounters()
        self.queue = JobQueue(folder, limits, load, self.counters.ended)

    def order(self, given: RestoreRequest) -> Order:
        """The order of a request.

        Raises:
            ConfigError: a field has a value that is not allowed.
        """
        names = [model.name for model in self.models]
        name = given.model or names[0]
        check(name in names, "model", name, f"one of {', '.join(names)}")
        (model,) = (each for each in self.models if each.name == name)
        for field in ("fidelity", "person_fidelity"):
            ok = model.two_ends or getattr(given, field) is None
            check(ok, field, getattr(given, field), "left out: the model has one end")
        chosen = given.box or given.person is not None or given.person_fidelity is not None
        ok = not chosen or given.people != "off"
        check(ok, "people", given.people, "auto or only where boxes or persons are given")
        settings = RestoreSettings(
            scale=given.scale,
            color=given.color,
            gate=given.gate,
            people=given.people,
            choice=_people_choice(given),
            seed=given.seed,
            max_pixels=self.limits.max_pixels,
        )
        return Order(
            model=name,
            fidelity=given.fidelity,
            decoder=_decoder(model, given.decoder),
            settings=settings,
            suffix=forced_suffix(given.format),
            quality=given.quality,
        )


def create_app(
    service: Service, *, token: str | None = None, hosts: tuple[str, ...] = ()
) -> FastAPI:
    """Create the application of a service.

    Args:
        service: what it serves.
        token: that clients must send; None admits everyone.
        hosts: names under which it may be called; an empty tuple admits all.
    """
    app = FastAPI(title="hbr", version=__version__, redoc_url=None, docs_url=None)
    limits = service.limits
    app.add_middleware(
        Guard,
        max_bytes=limits.max_bytes,
        seconds=limits.upload_seconds,
        answered=service.counters.answered,
        token=token,
        hosts=hosts,
    )

    @app.exception_handler(RequestValidationError)
    async def explain(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return _refusal(422, f"{field}: {first['msg']}")

    @app.exception_handler(HbrError)
    async def refuse(_: Request, error: HbrError) -> Response:
        return _refusal(error.http_status, error.line)

    app.include_router(_restoring(service))
    app.include_router(_following(service))
    app.include_router(_looking(service))
    return app


def _restoring(service: Service) -> APIRouter:
    """The route that takes photos."""
    router = APIRouter(prefix="/v1", tags=["restore"])

    @router.post(
        "/restore",
        summary="Restore a photo",
        responses={
            200: {
                "description": "The restored photo, in the format of the input unless `format` "
                "says otherwise; X-Hbr-Provenance has how it was made, as JSON.",
                "content": {"image/*": {}},
            },
            202: {"model": JobView, "description": "The photo is queued; Location has the job."},
            413: {"description": "The upload is too large."},
            422: {"description": "The file is not a photo that can be read, or a wrong setting."},
            503: {"description": "The queue is full; try again later."},
        },
    )
    async def restore(request: Request, given: Annotated[RestoreRequest, Form()]) -> Response:
        order = service.order(given)
        folder = service.queue.new_folder()
        try:
            with (folder / "source").open("wb") as file:
                await run_in_threadpool(shutil.copyfileobj, given.photo.file, file)
            size = await run_in_threadpool(photo_size, folder / "source")
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        job = service.queue.submit(folder, _stem(given.photo.filename), order)
        small = size is None or size[0] * size[1] <= service.limits.small
        waits = given.mode == "sync" or (given.mode == "auto" and small)
        if not waits:
            where = f"/v1/jobs/{job.id}"
            view = _view(service, job).model_dump()
            return JSONResponse(view, status_code=202, headers={"Location": where})
        return await _result_of(request, service, job)

    return router


async def _result_of(request: Request, service: Service, job: PhotoJob) -> Response:
    """Wait for a job and return its result; a client that hangs up cancels it."""
    finished = asyncio.wrap_future(job.finished)
    while not finished.done():
        await asyncio.wait([finished], timeout=0.25)
        if not finished.done() and await request.is_disconnected():
            service.queue.forget(job)
            return _refusal(499, "the client has hung up")
    if job.result is None:
        service.queue.forget(job)
        return _refusal(job.status if job.error else 503, job.error or "the job was cancelled")
    headers = {"X-Hbr-Provenance": json.dumps(job.provenance)}
    after = BackgroundTask(service.queue.forget, job)
    return FileResponse(job.result, filename=_file_name(job), headers=headers, background=after)


def _following(service: Service) -> APIRouter:
    """The routes of a job."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
    queue = service.queue

    @router.get("/{id}", summary="The state of a job", response_model=JobView)
    async def show(id: str) -> JobView:
        return _view(service, queue.get(id))

    @router.get("/{id}/events", summary="The progress of a job, as server-sent events")
    async def follow(id: str) -> StreamingResponse:
        return StreamingResponse(_events(service, queue.get(id)), media_type="text/event-stream")

    @router.get("/{id}/result", summary="The restored photo")
    async def result(id: str) -> Response:
        job = queue.get(id)
        if job.result is None:
            return _refusal(409, job.error or f"the job is {job.state}; it has no result")
        return FileResponse(job.result, filename=_file_name(job))

    @router.get("/{id}/preview", summary="The photo before or after, as a JPEG for browsers")
    async def preview(
        id: str, of: Annotated[Literal["before", "after"], Query()] = "after"
    ) -> Response:
        job = queue.get(id)
        path = job.source if of == "before" else job.result
        if path is None:
            return _refusal(409, f"the job is {job.state}; it has no result")
        data = await run_in_threadpool(_preview, path, job, service.limits.max_pixels)
        return Response(data, media_type="image/jpeg")

    @router.delete("/{id}", status_code=204, summary="Cancel a job and delete its result")
    async def delete(id: str) -> None:
        queue.forget(queue.get(id))

    @router.post("/archive", summary="The results of several jobs as one ZIP file")
    async def archive(order: ArchiveOrder) -> Response:
        jobs = [job for id in order.jobs if (job := queue.get(id)).result is not None]
        if not jobs:
            raise NoSuchJobError("none of these jobs has a result")
        path = await run_in_threadpool(_zip, jobs, queue.folder)
        return FileResponse(
            path,
            filename="restored.zip",
            media_type="application/zip",
            background=BackgroundTask(path.unlink, missing_ok=True),
        )

    return router


def _looking(service: Service) -> APIRouter:
    """The routes that say what the service is and how it does."""
    router = APIRouter(tags=["service"])

    @router.get("/v1/models", summary="The models of this service")
    async def models() -> list[ModelView]:
        return list(service.models)

    @router.get("/healthz", summary="Whether the service runs")
    async def health() -> HealthView:
        waiting, detector = service.queue.waiting, auto_detector()
        return HealthView(hbr=__version__, waiting=waiting, person_detector=detector)

    @router.get("/metrics", summary="Counters for Prometheus", include_in_schema=False)
    async def metrics() -> Response:
        service.counters.show(service.queue)
        return Response(generate_latest(service.counters.registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _decoder(model: ModelView, asked: str) -> str | None:
    """The decoder in place of the model's own: its default unless another is asked for."""
    ok = asked in ("", OWN, *model.decoders)
    check(ok, "decoder", asked, f"one of {', '.join([*model.decoders, OWN])}, or left out")
    return None if asked == OWN else asked or next(iter(model.decoders), None)


def _people_choice(given: RestoreRequest) -> PeopleChoice:
    persons, fidelity = given.person, given.person_fidelity
    return PeopleChoice(
        boxes=tuple(map(parse_box, given.box)),
        persons=() if persons is None else parse_persons(persons),
        fidelity=() if fidelity is None else parse_person_fidelity(fidelity),
    )


async def _events(service: Service, job: PhotoJob) -> AsyncIterator[str]:
    shown, finished = None, asyncio.wrap_future(job.finished)
    while True:
        ended = job.state in _ENDED  # before the view, which then shows how
        view = _view(service, job).model_dump_json()
        if view != shown:
            shown = view
            yield f"data: {view}\n\n"
        if ended:
            return
        await asyncio.wait([finished], timeout=0.2)


def _view(service: Service, job: PhotoJob) -> JobView:
    about = (job.provenance or {}).get("people")
    return JobView(
        id=job.id,
        name=job.name,
        state=job.state,
        position=service.queue.position(job),
        done=job.done,
        total=job.total,
        error=job.error,
        result=f"/v1/jobs/{job.id}/result" if job.result else None,
        file_name=_file_name(job) if job.result else None,
        people=None if about is None else list(about["found"]),
        photo_size=job.photo_size[::-1] if job.photo_size else None,
        provenance=dict(job.provenance) if job.provenance else None,
        timings=dict(job.timings) if job.timings else None,
    )


def _refusal(status: int, detail: str) -> JSONResponse:
    headers = {"Retry-After": "5"} if status == 503 else None
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _stem(name: str | None) -> str:
    """The stem of a client's file name; of a path, the last part, whatever the system."""
    last = PurePosixPath((name or "").replace("\\", "/")).name
    stem = last.rpartition(".")[0] or last
    return "".join(c for c in stem if c.isprintable())[:100].strip(". ")


def _file_name(job: PhotoJob) -> str:
    assert job.result is not None
    return f"{job.name or 'photo'}-restored{job.result.suffix}"


def _preview(path: Path, job: PhotoJob, max_pixels: int) -> bytes:
    image = read_photo(path, max_pixels=max_pixels).pil().convert("RGB")
    if path == job.source and job.size is not None and image.size != job.size[::-1]:
        image = image.resize(job.size[::-1])
    image.thumbnail((_PREVIEW_EDGE, _PREVIEW_EDGE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _zip(jobs: list[PhotoJob], folder: Path) -> Path:
    taken: dict[str, int] = {}
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".zip", delete=False) as file:
        made = Path(file.name)
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for job in jobs:
                    assert job.result is not None
                    name = _file_name(job)
                    number = taken[name] = taken.get(name, 0) + 1
                    if number > 1:
                        name = f"{PurePosixPath(name).stem}-{number}{job.result.suffix}"
                    archive.write(job.result, name)
        except BaseException:
            made.unlink(missing_ok=True)
            raise
    return made
