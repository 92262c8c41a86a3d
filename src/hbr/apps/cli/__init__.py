"""The command line: `hbr restore | models | curate | degrade | train | evaluate | …`.

Loading it loads no torch; each command imports what it works with when it is called.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit tells."""

    OK = 0
    """All was done."""
    NOTHING = 1
    """None of the inputs was done, or something went wrong that no other code names."""
    USAGE = 2
    """The command or its configuration is wrong."""
    SOME = 3
    """Some inputs were done, some failed."""
    WEIGHTS = 4
    """Weights are missing or wrong."""
    MEMORY = 5
    """Out of memory."""
    INTERRUPTED = 130
    """Ctrl-C."""
    BROKEN_PIPE = 141
    """Whoever read the output has left."""
