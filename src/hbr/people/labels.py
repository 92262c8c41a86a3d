"""Which class labels mean a person."""

from __future__ import annotations

import re

from hbr.people.types import DetectorError

PERSON_LABELS = frozenset(
    {"person", "people", "human", "pedestrian", "man", "woman", "boy", "girl"}
)
"""Labels of persons in the vocabularies that detectors are trained on, in lower case."""


def normalised(label: str) -> str:
    """A label in the form that is compared: lower case, words separated by one space."""
    return re.sub(r"[\s_-]+", " ", label).strip().casefold()


def person_classes(names: dict[int, str]) -> list[int]:
    """The indices of the person classes of a detector.

    Raises:
        DetectorError: there is none.
    """
    numbers = [n for n, name in sorted(names.items()) if normalised(name) in PERSON_LABELS]
    if not numbers:
        known = ", ".join(list(names.values())[:8])
        raise DetectorError(f"the detector has no person class; its classes are {known} …")
    return numbers
