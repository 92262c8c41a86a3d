"""What a service accepts, and how long it keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from hbr.config import check
from hbr.image.limits import DEFAULT_MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """The limits of a service.

    Attributes:
        max_bytes: size of an upload.
        max_pixels: of a photo, and of a result that is enlarged.
        waiting: photos in the queue; further ones are refused.
        held: photos whose results are kept; further ones are refused until some have expired.
        seconds: time to restore one photo, from its start.
        upload_seconds: time for an upload.
        keep: seconds that a finished photo and its result are kept.
        small: photos up to this many pixels are answered at once if `mode` is "auto".
    """

    max_bytes: int = 100_000_000
    max_pixels: int = DEFAULT_MAX_PIXELS
    waiting: int = 32
    held: int = 1000
    seconds: float = 1800.0
    upload_seconds: float = 300.0
    keep: float = 3600.0
    small: int = 2_000_000

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_pixels", "waiting", "held"):
            check(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("seconds", "upload_seconds", "keep"):
            check(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        check(self.small >= 0, "small", self.small, "0 or more")
