"""What clients of the HTTP API send and get."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, Field

OWN = "own"
"""The name by which a client asks for the model's own decoder."""


class RestoreRequest(BaseModel):
    """A photo and how to restore it."""

    photo: UploadFile = Field(description="JPEG, PNG, TIFF, WebP, AVIF, BMP and others")
    model: str = Field("", description="one of /v1/models; the first if empty", examples=["nano"])
    fidelity: float | None = Field(
        None, ge=0, le=1, description="1 faithful, 0 sharp; of models with two ends"
    )
    decoder: str = Field(
        "", description="one of the model's decoders in /v1/models, the first if empty, or own"
    )
    scale: float = Field(1.0, description="0.25 to 8")
    color: Literal["auto", "wavelet", "adain", "none"] = "auto"
    gate: Literal["auto", "off"] = "off"
    people: Literal["off", "auto", "only"] = Field(
        "off", description="restore people for themselves; only leaves all else as it is"
    )
    box: list[str] = Field(
        [], description="x,y,width,height of a person, in place of a detector; may be repeated"
    )
    person: str | None = Field(
        None, description="restore only these people, numbered from 1", examples=["1,3"]
    )
    person_fidelity: str | None = Field(
        None, description="the fidelity of single people, by number", examples=["1=0.8,3=0"]
    )
    seed: int = Field(0, ge=0, lt=2**63)
    format: str = Field("keep", description="keep, jpg, png, tif, webp, avif or bmp")
    quality: int = Field(95, ge=1, le=100, description="of JPEG, WebP and AVIF")
    mode: Literal["auto", "sync", "job"] = Field(
        "auto", description="sync waits for the result, job answers at once, auto decides by size"
    )


class JobView(BaseModel):
    """A job as a client sees it."""

    id: str
    name: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    position: int = Field(description="how many photos are restored before this one")
    done: int = Field(description="finished tiles")
    total: int = Field(description="all tiles; 0 before the photo was read")
    error: str | None = None
    result: str | None = Field(None, description="path of the result, when done")
    file_name: str | None = Field(None, description="name for the result, when done")
    people: list[dict[str, Any]] | None = Field(
        None, description="who was found and what was done; null where nobody was looked for"
    )
    photo_size: tuple[int, int] | None = Field(
        None, description="width and height of the upright photo in pixels, when done"
    )
    provenance: dict[str, Any] | None = None
    timings: dict[str, float] | None = None


class ModelView(BaseModel):
    """A model that this service offers."""

    name: str
    two_ends: bool = Field(description="whether it takes a fidelity")
    upscale: int = Field(description="factor by which it enlarges; 1 restores at the photo's size")
    decoders: list[str] = Field(
        [], description="decoders in place of the model's own; the first is the default"
    )


class ArchiveOrder(BaseModel):
    """Jobs whose results are wanted in one ZIP file."""

    jobs: Annotated[list[str], Field(min_length=1, max_length=1000)]


class HealthView(BaseModel):
    """How the service does, and what it can do besides restoring."""

    status: Literal["ok"] = "ok"
    hbr: str = Field(description="the version")
    waiting: int = Field(description="photos that wait")
    person_detector: str | None = Field(
        description="what finds people; null where none is installed (hbr fetch people)"
    )
