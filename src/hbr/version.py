"""The versions of hbr and of installed packages."""

import functools

__version__ = "0.1.0"


@functools.cache
def installed_version(package: str) -> str | None:
    """The version of an installed package; None if it is not installed."""
    from importlib.metadata import PackageNotFoundError, version  # slow; not needed for --help

    try:
        return version(package)
    except PackageNotFoundError:
        return None
