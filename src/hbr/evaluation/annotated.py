"""The people in the references of an evaluation, for the metrics of people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbr.errors import display_name
from hbr.evaluation.pairing import PicturePair
from hbr.files import sha256
from hbr.image import Photo
from hbr.metrics import MetricError, MetricInfo
from hbr.people.grids import GridName, upright_people

if TYPE_CHECKING:
    from hbr.people.types import People


class AnnotatedPictures:
    """Who is in the references, by a COCO file, and where they are in the restored pictures.

    Attributes:
        warning: one line about entries of the file that cannot be used, or None.
        digest: of all that the values depend on.
    """

    def __init__(
        self,
        people: Path | None,
        *,
        pose: Path | None = None,
        device: str = "cpu",
        grid: GridName = "stored",
        border: int = 0,
        pairs: Sequence[PicturePair] = (),
    ) -> None:
        """Open the files.

        Args:
            people: the COCO file.
            pose: ONNX file that finds key points in the restored pictures.
            device: where it runs.
            grid: on which grid people are annotated where the annotated size does not tell.
            border: pixels that were cut off each edge of the pictures.
            pairs: all of the evaluation, of which no two can have the people of one name.

        Raises:
            MetricError: no file of people was given.
            ConfigError, hbr.people.types.DetectorError: a file cannot be used.
        """
        from hbr.people.coco import read_people

        if people is None:
            raise MetricError("the people in the pictures are not known; give them by --people")
        self._annotated = read_people(people)
        self._grid, self._border = grid, border
        places = [place for pair in pairs if (place := self._place(pair)) is not None]
        self._lost = self._annotated.clashes(places, any_suffix=True).lost
        self.warning = self._annotated.warning
        self._pose: Callable[..., Any] | None = None
        self.digest = f"people {sha256(people)}"
        if grid != "stored":
            self.digest += f" {grid}"
        if pose is not None:
            from hbr.people.pose import RtmPose

            self._pose = RtmPose(pose, device=device)
            self.digest += f", pose {sha256(pose)}"

    def __call__(
        self,
        info: MetricInfo,
        pairs: Sequence[PicturePair],
        references: Sequence[Photo],
        restored: Sequence[Photo],
    ) -> dict[str, Any]:
        """The additional arguments of a person metric.

        Args:
            info: of the metric.
            pairs: the files.
            references, restored: their pictures, upright, without the border.
        """
        people = [self._of(*item) for item in zip(pairs, references, strict=True)]
        if "restored keypoints" not in info.needs:
            return {"people": people}
        if self._pose is None:
            raise MetricError("key points in the restored pictures need --pose FILE.onnx")
        return {
            "people": people,
            "restored_people": self._pose([p.pixels for p in restored], people),
        }

    def _of(self, pair: PicturePair, picture: Photo) -> People:
        from hbr.people.types import People

        place = self._place(pair)
        if place is None:
            file = pair.reference or pair.restored
            path = display_name(self._annotated.path)
            raise MetricError(f"{path} has no picture called {file.name}")
        clash = self._lost.get(place) or self._annotated.clash(place, any_suffix=True)
        found = self._annotated.find(place, any_suffix=True)
        if clash or found is None:
            raise MetricError(clash or "")
        h, w = (edge + 2 * self._border for edge in picture.size)
        upright = upright_people(found, (h, w), picture.orientation, self._grid)
        return People.of(upright).without_border(self._border, (h, w))

    def _place(self, pair: PicturePair) -> str | None:
        """The place of a picture that the annotations name, once or several times."""
        file = pair.reference or pair.restored
        for place in (pair.stem + file.suffix, file.name):
            if self._annotated.find(place, any_suffix=True) is not None:
                return place
            if self._annotated.clash(place, any_suffix=True):
                return place
        return None
