"""A photo in, the restored photo out: any size, any depth, on any device.

`Restorer` is all that most need. Under it lie the plan of tiles (`tiling`), the run of a network
over them (`running`), and the colour fixes (`color`).
"""

from hbr.restoration.restorer import Restored, Restorer
from hbr.restoration.running import OutOfMemoryError

__all__ = ["OutOfMemoryError", "Restored", "Restorer"]
