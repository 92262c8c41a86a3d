"""Restoring photos of any size and bit depth, on any device.

`Restorer` is all that most callers need. `pixels` holds what is measured and changed without a
model, `passes` runs a model over a photo, `people` restores the people in it for themselves, and
`batch` plans and restores many photos. Names are resolved on first use: planning alone loads no
torch.
"""

from typing import TYPE_CHECKING

from hbr.lazy import lazy

if TYPE_CHECKING:
    from hbr.errors import OutOfMemoryError
    from hbr.restoration.restorer import Restorer
    from hbr.restoration.result import Restored
    from hbr.restoration.settings import Provenance, RestoreSettings

_HOMES = {
    "OutOfMemoryError": "hbr.errors",
    "Provenance": "hbr.restoration.settings",
    "RestoreSettings": "hbr.restoration.settings",
    "Restored": "hbr.restoration.result",
    "Restorer": "hbr.restoration.restorer",
}

__all__ = ["OutOfMemoryError", "Provenance", "RestoreSettings", "Restored", "Restorer"]

__getattr__, __dir__ = lazy(__name__, _HOMES)
