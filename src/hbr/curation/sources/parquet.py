"""Parquet files with image bytes in a column, as binary or, as on the hub, as {bytes, path}."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hbr.curation.sources.base import ImageRef, SourceError, SourceImage
from hbr.curation.sources.configs import ParquetConfig
from hbr.curation.sources.labels import Vocabulary
from hbr.curation.sources.paths import broken
from hbr.curation.sources.row_reader import COLUMNS, RowReader

ROWS_AT_ONCE = 1000


def read_parquet(
    name: str, config: ParquetConfig, files: Sequence[Path], vocabulary: Vocabulary
) -> Iterator[SourceImage]:
    """The images in the order of files and rows; no image bytes are read for it."""
    import pyarrow

    for path in files:
        try:
            yield from _file(name, config, path, vocabulary)
        except FileNotFoundError:
            raise SourceError(f"{path}: no such file") from None
        except (OSError, pyarrow.ArrowException) as error:
            said = " ".join(str(error).replace(str(path), path.name).split())
            yield broken(name, path.name, f"{path.name} is cut or no Parquet: {said}")


def _file(
    source: str, config: ParquetConfig, path: Path, vocabulary: Vocabulary
) -> Iterator[SourceImage]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        schema = file.schema_arrow
        column = config.column or _image_column(schema, path)
        if column not in schema.names:
            there = ", ".join(schema.names)
            raise SourceError(f"{path}: no column {column}; there are {there}")
        columns = [name for name in COLUMNS if name in schema.names]
        classes = config.classes or class_names(_features(schema))
        reader = RowReader(source, replace(config, classes=classes), vocabulary)
        rows: Iterator[dict[str, Any]] = ({} for _ in range(file.metadata.num_rows))
        if columns:
            batches = file.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns)
            rows = (values for batch in batches for values in batch.to_pylist())
        for row, values in enumerate(rows):
            ref = ImageRef(path=str(path.absolute()), column=column, row=row)
            yield from reader.images(f"{path.name}/{row:08d}", ref, values)


def _image_column(schema: Any, path: Path) -> str:
    """The column of image bytes."""
    from pyarrow import types

    def holds_bytes(kind: Any) -> bool:
        if types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return types.is_binary(kind) or types.is_large_binary(kind)

    names = [field.name for field in schema if holds_bytes(field.type)]
    if "image" in names:
        return "image"
    if len(names) == 1:
        return str(names[0])
    raise SourceError(
        f"{path}: which column holds the images? `column` names it; "
        + (f"it may be {', '.join(names)}" if names else "none here holds bytes")
    )


def _features(schema: Any) -> Any:
    """The features of the columns, as the hub's library stores them."""
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return None


def class_names(features: Any) -> tuple[str, ...]:
    """The names behind the numbers of `objects.category`, if the features have them."""
    if isinstance(features, dict):
        if features.get("_type") == "ClassLabel" and isinstance(features.get("names"), list):
            return tuple(map(str, features["names"]))
        for key in ("objects", "annotations", "feature", "category", "label"):
            if key in features and (names := class_names(features[key])):
                return names
    return class_names(features[0]) if isinstance(features, list) and features else ()
