"""Known weights: one catalogue, where they lie on this machine, and how they get there.

Nothing is downloaded unless a command that says so is given.
"""

from hbr.weights.catalogue import (
    FOREIGN_NETWORKS,
    Entry,
    FoundFile,
    available,
    entries,
    fetch_weights,
    find_and_hash_model,
    find_decoder,
    find_model,
    find_weights,
)
from hbr.weights.download import ByteProgress, fetch, weights_folder, weights_folders
from hbr.weights.mistaken import instead_of_weights
from hbr.weights.parts import check_space, fetch_parts, look_for_parts, size_text
from hbr.weights.sources import (
    DownloadError,
    KnownFile,
    Member,
    PackageFile,
    WeightsError,
)

__all__ = [
    "FOREIGN_NETWORKS",
    "ByteProgress",
    "DownloadError",
    "Entry",
    "FoundFile",
    "KnownFile",
    "Member",
    "PackageFile",
    "WeightsError",
    "available",
    "check_space",
    "entries",
    "fetch",
    "fetch_parts",
    "fetch_weights",
    "find_and_hash_model",
    "find_decoder",
    "find_model",
    "find_weights",
    "instead_of_weights",
    "look_for_parts",
    "size_text",
    "weights_folder",
    "weights_folders",
]
