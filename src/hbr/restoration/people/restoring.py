"""People who are restored for themselves, and put back into their photo.

Everyone gets a pass of their own where it changes something: where the model restores people at its
native size (`hbr.models.Capabilities.person_crops`) and they are smaller, where they have their own
fidelity, or where the background is not restored by the same model. Otherwise the tiles of the
whole photo have already done the same. Nobody is made smaller than in the photo: who is larger than
the native size goes through the model in tiles.

Shapes: H W the result, in pixels.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from hbr.devices import choose_batch, reproducible
from hbr.image import Photo
from hbr.models.protocol import PreviewStep
from hbr.people.grids import Edges
from hbr.people.squares import square, square_pixels
from hbr.restoration.passes.inference import TileProgress, decided, run_crops
from hbr.restoration.passes.making import LoadedModel, Made, provenance_of
from hbr.restoration.people.locating import LocatedPerson, PeopleLocator
from hbr.restoration.people.pasting import (
    MARGIN,
    FloatPlane,
    Window,
    around,
    fade_of,
    paste,
    person_mask,
    scaled,
)
from hbr.restoration.pixels.color import fix_color, to_unit
from hbr.restoration.pixels.gate import Judgement, judge
from hbr.restoration.pixels.grain import grained
from hbr.restoration.pixels.inputs import resized_pixels, resized_to
from hbr.restoration.result import Restored
from hbr.restoration.settings import (
    NO_OUTLINES,
    NOBODY,
    PeopleProvenance,
    PersonProvenance,
    RestoreSettings,
)

PhotoPixels = NDArray[np.uint8] | NDArray[np.uint16]
Done = Literal["crop", "tiles", "background", "left as it is"]
Stages = Iterator[TileProgress | None]


class _Clock:
    """Seconds by what they were spent on."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(("read", "locate", "model", "color", "paste"), 0.0)
        self._last = time.perf_counter()

    def spent(self, on: str) -> None:
        """Since the last call."""
        now = time.perf_counter()
        self.seconds[on] += now - self._last
        self._last = now

    def add(self, made: Made | None) -> None:
        """What a pass says of itself, in place of the time since the last call."""
        for name, seconds in made.timings.items() if made else ():
            self.seconds[name] += seconds
        self._last = time.perf_counter()


def _stages(progress: TileProgress | None, n: int) -> Stages:
    """The progress of each of n passes over one photo, as parts of one."""
    if progress is None or n <= 1:
        return itertools.repeat(progress)
    report = progress

    def share(before: int, done: int, total: int) -> None:
        report(before * total + done, n * total)

    return (partial(share, before) for before in itertools.count())


@dataclass(frozen=True, eq=False, kw_only=True)
class _Plan:
    """What is done to a person.

    Attributes:
        person: who.
        box, window: on the grid of the result.
        done: how; "background" is not pasted.
        model: restores them.
        judged: by the gate, if it was asked.
    """

    person: LocatedPerson
    box: Edges
    window: Window
    done: Done
    model: LoadedModel
    judged: Judgement | None = None

    @property
    def side(self) -> int:
        """Edge of the square around them."""
        return square_around(self.box, (1, 1))[2]


def check_people(restorer: LoadedModel, locator: PeopleLocator, settings: RestoreSettings) -> None:
    """Load what restoring people needs, besides the model.

    Raises:
        ConfigError: a file of boxes cannot be read, or the model has no fidelity to choose.
        hbr.people.types.DetectorError: there is no detector, and what is asked needs one.
        hbr.models.WeightsError: the model for the background is missing.
    """
    locator.is_ready(settings)
    choice = settings.choice
    locator.segmenter(choice.outlines)
    for _, fidelity in choice.fidelity:
        restorer.sibling(fidelity=fidelity)
    if choice.background not in ("model", "keep"):
        restorer.sibling(model=choice.background)


def restore_people(
    restorer: LoadedModel,
    locator: PeopleLocator,
    given: Photo,
    settings: RestoreSettings,
    progress: TileProgress | None = None,
    preview: PreviewStep | None = None,
) -> Restored:
    """Restore a photo and, for themselves, the people in it.

    `settings.people` is "auto" or "only".

    Raises:
        ValueError: somebody who is chosen is not there, or a setting does not fit the model.
    """
    clock = _Clock()
    alone = replace(settings, people="off", gate="off")
    people, source = locator(given, settings.choice)
    clock.spent("locate")
    judges = settings.gate == "auto" and settings.result_size(given.size) == given.size
    background = "keep" if settings.people == "only" else settings.choice.background
    judged = judge(given.pixels) if judges and background != "keep" else None
    leaves = judged is not None and judged.verdict == "nothing to restore"
    other = background not in ("model", "keep")
    model = restorer.sibling(model=background) if other else restorer
    plans = _plans(restorer, given, settings, people, same=background == "model" and not leaves)
    stages = _stages(progress, (background != "keep" and not leaves) + _passes(plans))
    pixels = resized_pixels(given, settings)
    plans, outlines = _with_outlines(plans, locator, given, settings.choice.outlines)
    drawn = [plan.person for plan in plans]
    clock.spent("read")
    made = (
        None if background == "keep" or leaves else model.make(given, alone, next(stages), preview)
    )
    clock.add(made)
    planes = np.ascontiguousarray(to_unit(pixels)[0]) if made is None else made.planes
    for plan, restored in _restored(plans, given, pixels, alone, stages, clock):
        x0, y0, x1, y1 = plan.window
        mask = person_mask(plan.person, drawn, plan.window, given.size, planes.shape[1:])
        paste(planes[:, y0:y1, x0:x1], restored, mask, fade_of(plan.box))
        clock.spent("paste")
    untouched = made is None and not _passes(plans) and planes.shape[1:] == given.size
    result = given if untouched else given.with_pixels(grained(planes, given, settings))
    clock.spent("color")
    found = tuple(_provenance(plan, restorer) for plan in plans)
    about: PeopleProvenance = {
        "mode": settings.people,
        "source": source,
        "background": background,
        "outlines": outlines,
        "found": found,
    }
    own = made if model is restorer else None
    timings = {**clock.seconds, "total": sum(clock.seconds.values())}
    provenance = provenance_of(restorer, settings, own, judged, about)
    settings = _decided(settings, [model, *(p.model for p in plans)], own, people, outlines)
    return Restored(
        photo=result, timings=timings, provenance=provenance, settings=settings, people=found
    )


def _with_outlines(
    plans: list[_Plan], locator: PeopleLocator, given: Photo, outlines: str
) -> tuple[list[_Plan], str]:
    """The plans with the outlines of everyone, where anyone is pasted, and what drew them."""
    if all(plan.done == "background" for plan in plans):
        return plans, NO_OUTLINES
    people, outlines = locator.outlined(given, [plan.person for plan in plans], outlines)
    return [replace(p, person=who) for p, who in zip(plans, people, strict=True)], outlines


def _decided(
    settings: RestoreSettings,
    models: Sequence[LoadedModel],
    made: Made | None,
    people: Sequence[LocatedPerson],
    outlines: str,
) -> RestoreSettings:
    """The settings with which the same bytes come again: with the boxes of those who were found.

    A file that has outlines is kept; so is "auto" for models that have different colour fixes.
    """
    colors = {model.color_fix(settings) for model in models}
    if len(colors) == 1:
        settings = replace(settings, color=colors.pop())
    if made is not None:
        settings = replace(settings, reduce=made.reduce)
        settings = decided(settings, made.run, models[0].capabilities)
    settings = replace(settings, choice=replace(settings.choice, outlines=outlines))
    if settings.choice.boxes or any(person.mask is not None for person in people):
        return settings
    boxes = tuple((x0, y0, x1 - x0, y1 - y0) for x0, y0, x1, y1 in (p.box for p in people))
    source = "auto" if boxes else NOBODY
    return replace(settings, choice=replace(settings.choice, source=source, boxes=boxes))


def square_around(box: Edges, size: tuple[int, ...]) -> tuple[int, int, int]:
    """The square that is cut out around a box in a photo of (h, w): x, y, side.

    It holds the window of the box, with two pixels to spare on each side for rounding; mirrored
    where it is larger than the photo.
    """
    margin = MARGIN + 4 / max(box[2] - box[0], box[3] - box[1])
    found = square(box, size[1], size[0], margin=margin, narrow="reflect")
    assert found is not None
    return found


def _plans(
    restorer: LoadedModel,
    given: Photo,
    settings: RestoreSettings,
    people: Sequence[LocatedPerson],
    *,
    same: bool,
) -> list[_Plan]:
    """What is done to everyone; `same` if the background is restored by the same model."""
    choice, size = settings.choice, settings.result_size(given.size)
    needs = restorer.capabilities
    fidelity = dict(choice.fidelity)
    judges = settings.gate == "auto" and size == given.size
    plans = []
    for person in people:
        box = scaled(person.box, given.size, size)
        own = fidelity.get(person.number, restorer.fidelity)
        model = restorer if own == restorer.fidelity else restorer.sibling(fidelity=own)
        judged = None
        done: Done = "tiles"
        if choice.persons and person.number not in choice.persons:
            done = "background"
        else:
            if judges:
                x0, y0, x1, y1 = around(person.box, given.size)
                judged = judge(given.pixels[y0:y1, x0:x1])
            if judged is not None and judged.verdict == "nothing to restore":
                done = "left as it is"
            elif needs.person_crops and square_around(box, size)[2] < needs.native_size:
                done = "crop"
            elif same and model is restorer:
                done = "background"
        window = around(box, size)
        plans.append(
            _Plan(person=person, box=box, window=window, done=done, model=model, judged=judged)
        )
    return plans


def _passes(plans: Sequence[_Plan]) -> int:
    return sum(plan.done in ("crop", "tiles") for plan in plans)


def _restored(
    plans: Sequence[_Plan],
    given: Photo,
    pixels: PhotoPixels,
    settings: RestoreSettings,
    stages: Stages,
    clock: _Clock,
) -> Iterator[tuple[_Plan, FloatPlane]]:
    """Everyone who is pasted with the pixels of their window, [3, h, w], the largest first.

    Who is smaller is pasted onto who is larger: of two boxes that overlap, the smaller one is the
    one that the larger one happens to contain.
    """
    pasted = sorted((p for p in plans if p.done != "background"), key=lambda p: -p.side)
    for (done, model), group in itertools.groupby(pasted, key=lambda p: (p.done, p.model)):
        if done == "crop" and not model.capabilities.samples and model.capabilities.upscale == 1:
            yield from _crops(model, list(group), pixels, settings, stages, clock)
            continue
        for plan in group:
            x0, y0, x1, y1 = plan.window
            if done == "left as it is":
                yield plan, np.ascontiguousarray(to_unit(pixels[y0:y1, x0:x1])[0])
                continue
            made = _alone(plan, given, pixels, settings, next(stages))
            clock.add(made)
            yield plan, made.planes


def _alone(
    plan: _Plan,
    given: Photo,
    pixels: PhotoPixels,
    settings: RestoreSettings,
    progress: TileProgress | None,
) -> Made:
    """Restore a person's window as a photo of its own, on the model's grid of the whole photo."""
    needs = plan.model.capabilities
    x0, y0, x1, y1 = plan.window
    height, width = y1 - y0, x1 - x0
    if plan.done == "crop":
        part = pixels[y0:y1, x0:x1]
        # as its square would be enlarged to the native size
        longest = max(height, width)
        size = min(round(longest * needs.native_size / plan.side), 8 * longest)
        alone = replace(settings, scale=1.0, size=size)
        made = plan.model.make(Photo.from_array(np.ascontiguousarray(part)), alone, progress)
        return replace(made, planes=_fitted(made.planes, height, width))
    source, scale, step = pixels, 1.0, needs.multiple_of
    if needs.upscale > 1:  # what such a network sees is the photo before it is enlarged
        source, scale, step = given.pixels, pixels.shape[0] / given.size[0], needs.upscale
        x0, y0, x1, y1 = around(plan.person.box, given.size)
    left, top = x0 % step, y0 % step
    part = source[y0 - top : y1, x0 - left : x1]
    alone = replace(settings, scale=scale, size=None)
    made = plan.model.make(Photo.from_array(np.ascontiguousarray(part)), alone, progress)
    planes = made.planes[:, round(top * scale) :, round(left * scale) :]
    return replace(made, planes=_fitted(planes, height, width))


def _crops(
    model: LoadedModel,
    plans: Sequence[_Plan],
    pixels: PhotoPixels,
    settings: RestoreSettings,
    stages: Stages,
    clock: _Clock,
) -> Iterator[tuple[_Plan, FloatPlane]]:
    """Restore people as squares that are enlarged to the model's native size, in batches."""
    size, native = pixels.shape[:2], model.capabilities.native_size
    batch = choose_batch(model.device) if settings.batch == "auto" else settings.batch
    color = model.color_fix(settings)
    for at in range(0, len(plans), batch):
        part = plans[at : at + batch]
        places = [square_around(plan.box, size) for plan in part]
        cut = [square_pixels(pixels, *place, mirrored=True) for place in places]
        seen = [resized_to(np.ascontiguousarray(one), native, native) for one in cut]
        clock.spent("read")
        with reproducible(settings.seed, model.device):
            made = run_crops(
                model.model, seen, conditions=model.conditions(settings), batch=len(part)
            )
        clock.spent("model")
        for plan, (x, y, side), lq, crop in zip(part, places, seen, made, strict=True):
            if progress := next(stages):
                progress(1, 1)
            planes = _fitted(fix_color(crop, lq, color, settings.color_map), side, side)
            x0, y0, x1, y1 = plan.window
            clock.spent("color")
            yield plan, np.ascontiguousarray(planes[:, y0 - y : y1 - y, x0 - x : x1 - x])


def _fitted(planes: NDArray[np.float32], height: int, width: int) -> FloatPlane:
    """Planes [3, …] at a size, where they have another."""
    if planes.shape[1:] == (height, width):
        return planes
    shrinks = planes.shape[1] > height
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized = [cv2.resize(plane, (width, height), interpolation=how) for plane in planes]
    return np.clip(np.stack(resized), 0, 1).astype(np.float32)


def _provenance(plan: _Plan, restorer: LoadedModel) -> PersonProvenance:
    x0, y0, x1, y1 = plan.person.box
    x, y, w, h = (round(float(value), 1) for value in (x0, y0, x1 - x0, y1 - y0))
    return {
        "number": plan.person.number,
        "box": (x, y, w, h),
        "score": round(plan.person.score, 4),
        "outline": plan.person.mask is not None,
        "done": plan.done,
        "size": restorer.capabilities.native_size if plan.done == "crop" else None,
        "fidelity": plan.model.fidelity if plan.done in ("crop", "tiles") else None,
        "gate": plan.judged.verdict if plan.judged else None,
        "gate_reasons": plan.judged.reasons if plan.judged else (),
    }
