"""Fast imports: the names of a package on first use, and large libraries without the collector."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def lazy(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` (from its `__all__`) for a package.

    `homes`: public name → the module that defines it.
    """

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return get, lambda: sorted(sys.modules[package].__all__)


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Import a module in this block without Python's garbage collector; nothing if it is there.

    The collector goes through all that large libraries define again and again, a quarter of the
    time that they take to import. None of it is garbage, so it is kept out of later collections
    too (`gc.freeze`).
    """
    if module in sys.modules or not gc.isenabled():
        yield
        return
    gc.collect()  # what is garbage now is not kept
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
