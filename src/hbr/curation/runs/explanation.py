"""Explains one row: what each stage found, in words and as a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from hbr.curation.config import CropConfig
from hbr.curation.manifest import crops_of
from hbr.curation.record import REASONS, STAGES, CurationError, Record
from hbr.curation.runs.photos import FoundPhoto
from hbr.curation.runs.report.sheets import MARK, draw_box
from hbr.curation.runs.run_folder import RunFolder, side
from hbr.files import write_bytes

_INK, _QUIET, _PAPER = (29, 31, 33), (94, 98, 102), (253, 253, 252)
_GOOD, _BAD, _SQUARE, _OTHERS = (30, 107, 58), (163, 50, 42), (80, 190, 255), (200, 200, 200)
_EDGE, _SIDE, _GAP = 760, 384, 24


def find_rows(run: RunFolder, asked: str) -> list[Record]:
    """The rows that are meant: by an id or its start, or by the key of their image.

    Raises:
        CurationError: there is none.
    """
    found = run.starting(asked.lower()) if set(asked.lower()) <= set("0123456789abcdef") else []
    if not found:
        source, _, key = asked.partition("/")
        found = run.chosen("key", [asked, key])
        named = [r for r in found if r.key == asked or (r.source, r.key) == (source, key)]
        found = named or found  # another source may have a photo of the same key
    if not found:
        raise CurationError(
            f"{run.path}: no row's id starts with {asked}, and no image is called so"
        )
    return found


def verdict(record: Record, *, finished: bool = True) -> str:
    """The result of a row, in one line."""
    if record.reason is None:
        if not finished:
            return "not stopped so far; the stages over the whole set are still to come"
        return f"kept, in split {record.split}"
    return f"stopped at {record.stage}: {REASONS[record.stage][record.reason]}"


def explain(run: RunFolder, record: Record) -> Iterator[str]:
    """What each stage found, line by line."""
    told = _told(run, record)
    yield f"{record.id}  {verdict(record, finished=run.manifest is not None)}"
    if record.detail:
        yield f"  {record.detail}"
    size = f"{record.width}x{record.height} px" if record.width else "size not known"
    yield f"photo      {record.source}/{record.key}, {size}"
    yield f"licence    {record.licence or 'not stated'}"
    if record.attribution:
        yield f"by         {record.attribution}"
    if record.x0 is not None:
        edges = ", ".join(f"{edge:.0f}" for edge in record.box)
        of = f", one of {record.persons} people" if record.persons else ""
        score = "" if record.box_score is None else f", score {record.box_score:.2f}"
        yield f"box        {edges}: {record.label or 'person'} ({record.box_kind}{score}){of}"
    yield from (f"{name:<10} {text}" for name, text in told.items() if name not in record.scores)
    if record.square_side is not None:
        x, y, side = record.square
        crops = crops_of(run.about)
        people = f", {record.crop_persons} people in it" if record.crop_persons else ""
        size = f"{side}" if crops.height is None else f"{side}x{crops.down(side)}"
        yield f"square     {size} px from ({x}, {y}){people}"
    yield from (f"{name:<10} {told[name]}" for name in record.scores)
    if record.z_mean is not None:
        yield f"z̄          {record.z_mean:+.4f}, the mean z-score of Eq. 1; top {run.top:.4g} stays"
    for name, text in (
        ("like", record.duplicate_of),
        ("group", record.group),
        ("tags", ", ".join(record.tags or ()) or None),
        ("crop", record.crop_sha256 and f"SHA-256 {record.crop_sha256}"),
    ):
        if text:
            yield f"{name:<11}{text}"
    if record.reason is not None:
        left = STAGES[STAGES.index(record.stage) + 1 :]
        if left:
            yield f"not seen by {', '.join(left)}"


def _told(run: RunFolder, record: Record) -> dict[str, str]:
    """Column → its value beside its threshold and its ceiling, of those that have a value."""
    floors, ceilings = (run.thresholds(record.source, ceilings=end) for end in (False, True))
    values = {"sharpness": record.sharpness, "box_edge": record.box_edge, **record.scores}
    return {
        name: against(value, floors.get(name), ceilings.get(name), side(name))
        for name, value in values.items()
        if value is not None
    }


def against(value: float, line: float | None, ceiling: float | None, side: str) -> str:
    """A score beside its threshold and its ceiling: `212.4 (at least 100: yes)`."""
    told = []
    for limit, least in ((line, side == "higher"), (ceiling, side != "higher")):
        if limit is not None:
            passed = value >= limit if least else value <= limit
            word = "at least" if least else "at most"
            told.append(f"{word} {limit:g}: {'yes' if passed else 'NO'}")
    return f"{value:.4g} ({', '.join(told) or 'no threshold'})"


def draw(
    run: RunFolder, record: Record, others: Sequence[Record], found: FoundPhoto, path: Path
) -> Path:
    """Write the explanation as a PNG: photo with boxes and square, crop, and scores."""
    photo = _photo(record, others, found, crops_of(run.about))
    crop = run.crop_files([record]).get(record.id)
    lines = list(_lines(run, record))
    height = max(photo.height, (_SIDE + _GAP if crop else 0) + 24 * len(lines) + 8)
    sheet = Image.new("RGB", (photo.width + _SIDE + 3 * _GAP, height + 70 + 2 * _GAP), _PAPER)
    canvas = ImageDraw.Draw(sheet)
    title = verdict(record, finished=run.manifest is not None)
    colour = _GOOD if record.alive else _BAD
    _write(canvas, (_GAP, _GAP - 4), f"{record.id}   {title}", 19, colour, sheet.width - 2 * _GAP)
    under = f"{record.source}/{record.key}   {record.detail or ''}"
    _write(canvas, (_GAP, _GAP + 26), under, 15, _QUIET, sheet.width - 2 * _GAP)
    top = _GAP + 66
    sheet.paste(photo, (_GAP, top))
    left = photo.width + 2 * _GAP
    if crop:
        with Image.open(io.BytesIO(crop)) as image:
            whole = ImageOps.contain(image.convert("RGB"), (_SIDE, _SIDE), Image.Resampling.LANCZOS)
            sheet.paste(whole, (left, top))
        top += _SIDE + _GAP
    for i, (text, colour) in enumerate(lines):
        _write(canvas, (left, top + 24 * i), text, 15, colour, _SIDE)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())
    return path


def _photo(
    record: Record, others: Sequence[Record], found: FoundPhoto, crops: CropConfig
) -> Image.Image:
    if found.pixels is None:
        sheet = Image.new("RGB", (_EDGE, _EDGE // 2), (235, 235, 232))
        canvas = ImageDraw.Draw(sheet)
        _write(canvas, (24, 24), "The photo is not at hand:", 16, _INK, _EDGE - 48)
        _write(canvas, (24, 50), found.why or "", 15, _QUIET, _EDGE - 48)
        return sheet
    image = Image.fromarray(np.ascontiguousarray(found.pixels))
    scale = min(_EDGE / image.width, _EDGE / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    for other in others:
        if other.x0 is not None and other.id != record.id:
            draw_box(image, [edge * scale for edge in other.box], _OTHERS, 1)
    if record.square_side is not None:
        x, y, side = record.square
        draw_box(image, [v * scale for v in (x, y, x + side, y + crops.down(side))], _SQUARE, 3)
    if record.x0 is not None:
        draw_box(image, [edge * scale for edge in record.box], MARK, 2)
    return image


def _lines(run: RunFolder, record: Record) -> Iterator[tuple[str, tuple[int, int, int]]]:
    yield "orange: the box; blue: the square; grey: the other boxes", _QUIET
    for name, text in _told(run, record).items():
        bad = ": NO" in text
        yield f"{name.replace('_', ' ')}  {text}", _BAD if bad else _INK
    if record.z_mean is not None:
        bad = record.reason == "not-in-top"
        yield f"mean z-score (Eq. 1)  {record.z_mean:+.3f}", _BAD if bad else _INK


def _write(
    canvas: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    """A line that ends with … where it would not fit."""
    font = ImageFont.load_default(size)
    text = text.encode("latin-1", "replace").decode("latin-1")
    if canvas.textlength(text, font) > width:
        while text and canvas.textlength(text + "...", font) > width:
            text = text[:-1]
        text += "..."
    canvas.text(place, text, colour, font)
