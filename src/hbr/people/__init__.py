"""The people in a photo: boxes, key points, masks. Names are imported on first use."""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.people.coco import read_people
    from hbr.people.detectors import DEFAULT_DETECTOR, load_detector
    from hbr.people.types import Detector, DetectorError, People

_HOMES = {
    "DEFAULT_DETECTOR": "hbr.people.detectors",
    "Detector": "hbr.people.types",
    "DetectorError": "hbr.people.types",
    "People": "hbr.people.types",
    "load_detector": "hbr.people.detectors",
    "read_people": "hbr.people.coco",
}
__all__ = [
    "DEFAULT_DETECTOR",
    "Detector",
    "DetectorError",
    "People",
    "load_detector",
    "read_people",
]
__getattr__, __dir__ = lazy(__name__, _HOMES)
