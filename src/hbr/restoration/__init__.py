"""A photo in, the restored photo out: any size, any depth, on any device.

`Restorer` is all that most need. Under it lie the plan of tiles (`tiling`), the run of a network
over them (`inference`), and the colour fixes (`color`); around it many photos in turn (`jobs` says
what goes where, `batch` does it). Names are resolved on first use: what only plans loads no torch.
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
