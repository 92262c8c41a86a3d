"""Whether everyone in a restored photo is still themselves, and what is done where not.

Faces are compared with themselves, before and after (`hbr.people.identity`). One that may have
become another person's is told, and with "keep" it is restored once more, at the faithful end of
the model.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from hbr.config import ConfigError
from hbr.image import Photo
from hbr.image.pixels import to_8_bits
from hbr.people.identity import SAME_FACE, IdentityChange, IdentityGuard, find_identity_guard
from hbr.people.types import DetectorError
from hbr.restoration.passes.making import LoadedModel
from hbr.restoration.result import Restored
from hbr.restoration.settings import FaceProvenance, PeopleChoice, RestoreSettings

_FAITHFUL = 1.0
# A head is larger than its face; by this share of the face on each side.
_AROUND_FACE = 0.4

logger = logging.getLogger(__name__)


def load_guard(restorer: LoadedModel, settings: RestoreSettings) -> IdentityGuard:
    """Load what compares faces.

    Raises:
        ConfigError: "keep" is asked of a model without a faithful end.
        hbr.people.types.DetectorError: its weights are missing or damaged.
    """
    if settings.identity == "keep" and restorer.fidelity is None:
        raise ConfigError(
            f"identity is 'keep', and {restorer.name} has no fidelity to raise; it must be warn"
        )
    return _guard_on(str(restorer.device))


@functools.cache  # but no error
def _guard_on(device: str) -> IdentityGuard:
    guard = find_identity_guard(device)
    if guard is None:
        raise DetectorError(
            "faces cannot be compared without MTCNN and a face embedding; `hbr fetch people` gets "
            "both, or take --identity off"
        )
    return guard


def guarded(
    restorer: LoadedModel,
    given: Photo,
    settings: RestoreSettings,
    restore: Callable[[Photo, RestoreSettings], Restored],
) -> Restored:
    """Restore a photo, compare the faces in it, and tell or mend those that have changed.

    `settings.identity` is "warn" or "keep"; `restore` restores a photo with `restorer`.

    Raises:
        ConfigError, hbr.people.types.DetectorError: see `load_guard`.
    """
    guard = load_guard(restorer, settings)
    plain = replace(settings, identity="off")
    restored = restore(given, plain)
    if restored.photo is given:  # left as it is
        return restored
    before = to_8_bits(given.pixels)
    faces = guard(before, to_8_bits(restored.photo.pixels))
    raised = set[int]()
    if settings.identity == "keep":
        again, raised = _with_faithful_faces(plain, restored, faces, given.size)
        if raised:
            restored = restore(given, again)
            faces = guard(before, to_8_bits(restored.photo.pixels))
    told = tuple(_face(face, i in raised) for i, face in enumerate(faces))
    for face in told:
        if face["same"] is False:
            place = ",".join(f"{round(value)}" for value in face["box"])
            end = ", at the faithful end too" if face["faithful"] else ""
            logger.warning(
                f"the face at {place} may no longer be the same person's (distance "
                f"{face['distance']:.2f}, from {SAME_FACE} on){end}"
            )
    return replace(restored, provenance={**restored.provenance, "faces": told})


def _with_faithful_faces(
    settings: RestoreSettings,
    restored: Restored,
    faces: Sequence[IdentityChange],
    size: tuple[int, ...],
) -> tuple[RestoreSettings, set[int]]:
    """Settings that restore the changed faces at the faithful end, and the indices of these."""
    changed = {i: face for i, face in enumerate(faces) if _has_changed(face)}
    if not restored.people:
        boxes = tuple(_head(face, size) for face in changed.values())
        faithful = tuple((i + 1, _FAITHFUL) for i in range(len(boxes)))
        choice = PeopleChoice(boxes=boxes, fidelity=faithful, outlines="none")
        return replace(settings, people="auto", choice=choice), set(changed)
    fidelity = dict(restored.settings.choice.fidelity)
    raised = set()
    for i, face in changed.items():
        for person in restored.people:
            x, y, w, h = person["box"]
            chosen = restored.settings.choice.persons
            if chosen and person["number"] not in chosen:
                continue
            (u, v) = (face.box[0] + face.box[2]) / 2, (face.box[1] + face.box[3]) / 2
            if x <= u <= x + w and y <= v <= y + h and fidelity.get(person["number"]) != _FAITHFUL:
                fidelity[person["number"]] = _FAITHFUL
                raised.add(i)
    choice = replace(restored.settings.choice, fidelity=tuple(sorted(fidelity.items())))
    return replace(restored.settings, choice=choice), raised


def _has_changed(face: IdentityChange) -> bool:
    return face.distance is not None and face.distance >= SAME_FACE


def _head(face: IdentityChange, size: tuple[int, ...]) -> tuple[float, float, float, float]:
    """x, y, width, height around a face, within a photo of (height, width)."""
    x0, y0, x1, y1 = face.box
    dx, dy = (x1 - x0) * _AROUND_FACE, (y1 - y0) * _AROUND_FACE
    left, top = max(0.0, x0 - dx), max(0.0, y0 - dy)
    return left, top, min(size[1], x1 + dx) - left, min(size[0], y1 + dy) - top


def _face(face: IdentityChange, raised: bool) -> FaceProvenance:
    x0, y0, x1, y1 = face.box
    x, y, w, h = (round(value, 1) for value in (x0, y0, x1 - x0, y1 - y0))
    return {
        "box": (x, y, w, h),
        "distance": None if face.distance is None else round(face.distance, 4),
        "same": None if face.distance is None else not _has_changed(face),
        "faithful": raised,
    }
