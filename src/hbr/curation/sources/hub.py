"""Data sets of the Hugging Face hub, or folders in their form, through `datasets` (extra `hub`).

They are downloaded by that library, as Arrow files that are memory-mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.configs import HubConfig
from hbr.curation.sources.hub_tables import load_table
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.parquet import ROWS_AT_ONCE, class_names
from hbr.curation.sources.row_reader import COLUMNS, RowReader


def read_hub(
    source: str, config: HubConfig, dataset: str, vocabulary: Vocabulary
) -> Iterator[SourceImage]:
    """The images of a split in the order of the rows; no image bytes are read for it.

    `dataset` is its name on the hub, or a folder.
    """
    hub = (config.config, config.split, config.revision)
    data = load_table(dataset, hub)
    column = config.column or _image_column(data, dataset)
    if column not in data.column_names:
        raise SourceError(f"{dataset}: no column {column}; {data.column_names}")
    classes = config.classes or class_names(data.features.to_dict())
    reader = RowReader(source, replace(config, classes=classes), vocabulary)
    columns = [name for name in COLUMNS if name in data.column_names and name != column]
    rest = data.select_columns(columns) if columns else None
    for row in range(len(data)):
        if row % ROWS_AT_ONCE == 0 and rest is not None:
            batch = rest[row : row + ROWS_AT_ONCE]
        values = {} if rest is None else {k: v[row % ROWS_AT_ONCE] for k, v in batch.items()}
        ref = ImageRef(path=dataset, column=column, row=row, hub=hub)
        yield from reader.images(f"{config.split}/{row:08d}", ref, values)


def _image_column(data: Any, dataset: str) -> str:
    import datasets

    names = [name for name, feature in data.features.items() if isinstance(feature, datasets.Image)]
    if "image" in data.column_names:
        return "image"
    if len(names) == 1:
        return names[0]
    raise SourceError(f"{dataset}: which of {', '.join(data.column_names)} holds the images?")
