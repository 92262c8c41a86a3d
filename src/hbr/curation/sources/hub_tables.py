"""Tables of the Hugging Face hub as `datasets` loads them: memory-mapped Arrow files."""

from __future__ import annotations

import functools
from typing import Any

from hbr.errors import one_line


def read_cell(dataset: str, hub: tuple[str, str, str], column: str, row: int) -> Any:
    """The value of a column in a row.

    Raises:
        OSError: it is not there.
    """
    data = _column(dataset, hub, column)
    if not 0 <= row < len(data):
        raise OSError(f"no row {row}")
    return data[row][column]


@functools.lru_cache(maxsize=8)
def _column(dataset: str, hub: tuple[str, str, str], column: str) -> Any:
    return load_table(dataset, hub).select_columns([column])


@functools.lru_cache(maxsize=8)
def load_table(dataset: str, hub: tuple[str, str, str]) -> Any:
    """The data set, its images left encoded.

    Args:
        dataset: its name on the hub, or a folder.
        hub: configuration, split and revision; each may be empty.

    Raises:
        OSError: it cannot be loaded, or the extra `hub` is missing.
    """
    try:
        import datasets
    except ImportError:
        raise OSError(
            "needs the extra `hub`: pip install 'hbr[hub]' brings the library datasets"
        ) from None
    config, split, revision = hub
    try:
        data = datasets.load_dataset(
            dataset, config or None, split=split, revision=revision or None
        )
    except Exception as error:  # the library's errors have no common ancestor
        raise OSError(one_line(error)) from None
    for name, feature in data.features.items():
        if isinstance(feature, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    return data
