"""Restoring photos of any size and bit depth, on any device.

`Restorer` is all that most callers need. It uses the tile plan (`tiling`), runs the model over the
tiles (`inference`) and applies a colour fix (`color`). `jobs` plans batches of photos and `batch`
runs them. Names are resolved on first use: planning alone loads no torch.
"""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.errors import OutOfMemoryError
    from hbr.restoration.restorer import Restored, Restorer

_HOMES = {
    "OutOfMemoryError": "hbr.errors",
    "Restored": "hbr.restoration.restorer",
    "Restorer": "hbr.restoration.restorer",
}

__all__ = ["OutOfMemoryError", "Restored", "Restorer"]

__getattr__, __dir__ = lazy(__name__, _HOMES)
