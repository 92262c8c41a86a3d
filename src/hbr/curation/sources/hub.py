"""Data sets of the Hugging Face hub, or folders in their form, through `datasets` (extra `hub`).

They are downloaded by that library, as Arrow files that are memory-mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.hub_tables import load_table
from hbr.curation.sources.parquet import class_names
from hbr.curation.sources.row_reader import COLUMNS, RowReader

ROWS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class HubSource:
    """Images of one split of a data set.

    Attributes:
        name: of the source.
        dataset: its name on the hub, or a folder.
        reader: reads the other columns.
        config, split, revision: as `datasets.load_dataset` takes them.
        column: the one with the images; None for the only one.
    """

    name: str
    dataset: str
    reader: RowReader
    config: str = ""
    split: str = "train"
    revision: str = ""
    column: str | None = None

    def __iter__(self) -> Iterator[SourceImage]:
        """The images in the order of the rows; no image bytes are read for it."""
        hub = (self.config, self.split, self.revision)
        try:
            data = load_table(self.dataset, hub)
        except OSError as error:
            raise SourceError(f"{self.dataset}: {error}") from None
        column = self.column or _image_column(data, self.dataset)
        if column not in data.column_names:
            raise SourceError(f"{self.dataset}: no column {column}; {data.column_names}")
        reader = self.reader
        if not reader.classes:
            reader = replace(reader, classes=class_names(data.features.to_dict()))
        columns = [name for name in COLUMNS if name in data.column_names and name != column]
        rest = data.select_columns(columns) if columns else None
        for row in range(len(data)):
            if row % ROWS_AT_ONCE == 0 and rest is not None:
                batch = rest[row : row + ROWS_AT_ONCE]
            values = {} if rest is None else {k: v[row % ROWS_AT_ONCE] for k, v in batch.items()}
            ref = ImageRef(path=self.dataset, column=column, row=row, hub=hub)
            yield from reader.images(self.name, f"{self.split}/{row:08d}", ref, values)


def _image_column(data: Any, dataset: str) -> str:
    import datasets

    names = [name for name, feature in data.features.items() if isinstance(feature, datasets.Image)]
    if "image" in data.column_names:
        return "image"
    if len(names) == 1:
        return names[0]
    raise SourceError(f"{dataset}: which of {', '.join(data.column_names)} holds the images?")
