"""The configuration of a RRDBNet, the upscaler of ESRGAN and Real-ESRGAN, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hbr.config import check, check_least
from hbr.models.protocol import Capabilities


@dataclass(frozen=True, kw_only=True)
class RRDBNetConfig:
    """A RRDBNet of factor 4; the defaults are Real-ESRGAN x4plus's (Wang et al. 2021).

    Attributes:
        blocks: residual-in-residual dense blocks.
        width: channels between the blocks.
        growth: channels that each convolution of a dense block adds.
        native_size: edge in pixels of the results that tiles are planned for; any other runs too.
        name: for people.
    """

    kind: Literal["rrdbnet"] = "rrdbnet"
    blocks: int = 23
    width: int = 64
    growth: int = 32
    native_size: int = 512
    name: str = "rrdbnet"

    def __post_init__(self) -> None:
        check_least(self, 1, "blocks", "width", "growth")
        ok = self.native_size >= 4 and self.native_size % 4 == 0
        check(ok, "native_size", self.native_size, "a multiple of 4")

    @property
    def capabilities(self) -> Capabilities:
        """What a model of this configuration supports."""
        # the smallest still has some pixels to see around each
        return Capabilities(
            multiple_of=4,
            min_size=64,
            native_size=self.native_size,
            dtypes=("bfloat16", "float32"),
            color="none",
            upscale=4,
        )
