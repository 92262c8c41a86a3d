import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource, threading, torch
from hbr.devices import keep_freed_memory
if {keep}:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(1.0)  # 64 MiB, and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def count():  # after some rounds there is room at the same place
    print(min(faults() for _ in range(20)))
count()
thread = threading.Thread(target=count)  # as in the service
thread.start()
thread.join(100)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_used_again_without_being_cleared(keep: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS.format(keep=keep)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    # at least one fault for each 2 MiB page otherwise
    assert [int(count) < 8 for count in done.stdout.split()] == [keep, keep]
