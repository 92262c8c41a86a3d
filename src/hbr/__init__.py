"""hbr restores photographs of people.

>>> import hbr
>>> restored = hbr.Restorer.from_pretrained("nano")("old.jpg")
>>> file = restored.save("new.jpg")
>>> hbr.read_photo(file).pixels.shape == restored.pixels.shape
True

The subpackages (`hbr.image`, `hbr.models`, `hbr.degradation`, `hbr.training`, `hbr.restoration`)
are for developers who build on hbr. Importing `hbr` does not import torch: names are resolved on
first use.
"""

import os
from typing import TYPE_CHECKING

from hbr.lazy import lazy
from hbr.version import __version__

if TYPE_CHECKING:
    from hbr.errors import HbrError
    from hbr.image import Photo, PhotoError, read_photo, write_photo
    from hbr.restoration import Restored, Restorer

# Before torch is loaded: between two parallel parts, idle threads of OpenMP spin unless they are
# told to sleep. On a machine with other work they take the cores from the threads that they wait
# for, and a photo takes many times as long. Results do not depend on it; what the user set is kept.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "HbrError": "hbr.errors",
    "Photo": "hbr.image",
    "PhotoError": "hbr.image",
    "Restored": "hbr.restoration",
    "Restorer": "hbr.restoration",
    "read_photo": "hbr.image",
    "write_photo": "hbr.image",
}

__all__ = [
    "HbrError",
    "Photo",
    "PhotoError",
    "Restored",
    "Restorer",
    "__version__",
    "read_photo",
    "write_photo",
]

__getattr__, __dir__ = lazy(__name__, _HOMES)
