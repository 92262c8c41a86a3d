"""A photo → the people in it: boxes, key points, masks. Names are resolved on first use."""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.people.annotations import people_from_coco
    from hbr.people.detectors import DEFAULT_DETECTOR, Detector, load_detector
    from hbr.people.types import DetectorError, People

_HOMES = {
    "DEFAULT_DETECTOR": "hbr.people.detectors",
    "Detector": "hbr.people.detectors",
    "DetectorError": "hbr.people.types",
    "People": "hbr.people.types",
    "load_detector": "hbr.people.detectors",
    "people_from_coco": "hbr.people.annotations",
}
__all__ = [
    "DEFAULT_DETECTOR",
    "Detector",
    "DetectorError",
    "People",
    "load_detector",
    "people_from_coco",
]
__getattr__, __dir__ = lazy(__name__, _HOMES)
