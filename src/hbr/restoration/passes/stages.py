"""The time and the progress of several passes over one photo."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from hbr.restoration.passes.inference import TileProgress
from hbr.restoration.passes.making import Made

_PARTS = ("read", "locate", "model", "color", "paste")


@dataclass
class Clock:
    """Seconds by what they were spent on."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(_PARTS, 0.0))
    last: float = field(default_factory=time.perf_counter)

    def spent(self, on: str) -> None:
        """Since the last call."""
        now = time.perf_counter()
        self.seconds[on] += now - self.last
        self.last = now

    def add(self, made: Made | None) -> None:
        """What a pass says of itself, in place of the time since the last call."""
        for name, seconds in made.timings.items() if made else ():
            self.seconds[name] += seconds
        self.last = time.perf_counter()


class Stages:
    """The progress of several passes over one photo, as that of one."""

    def __init__(self, progress: TileProgress | None, stages: int) -> None:
        self._progress, self._stages = progress, stages
        self._begun = 0

    def next(self) -> TileProgress | None:
        """The progress of the next pass."""
        before, self._begun = self._begun, self._begun + 1
        report = self._progress
        if report is None or self._stages <= 1:
            return report
        return lambda done, total: report(before * total + done, self._stages * total)
