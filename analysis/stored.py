"""The collected datasets: Parquet files, each with a manifest of the parts in it, so that only new parts are read."""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.errors import InputError, one_line
from analysis.parts import Part, encoded, join, read_all

ROWS = 131_072  # of a row group
_TOKEN = b"sbbridge_collection"
# Nullable types: pandas would otherwise turn a column of counts with one gap into floats.
_PANDAS_TYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


@dataclass(frozen=True)
class Dataset:
    """One collected file, `trials` or `metrics` of a study.

    Attributes:
        path: of the Parquet file.
        manifest: of the list of parts that are in it.
        schema: of its rows.
        needed: columns without which a part is none of these records.
        last: which rows of a table with several attempts stay, in their order.
        finish: what is written of them; it may add columns that follow from others.
        left_out: columns of `schema` that stand in the folder's name instead.
    """

    path: Path
    manifest: Path
    schema: pa.Schema
    needed: tuple[str, ...]
    last: Callable[[pa.Table], tuple[pa.Table, np.ndarray]]
    finish: Callable[[pa.Table], pa.Table]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Update:
    """What an update found.

    Attributes:
        rows: of the dataset now.
        new: how many parts were read.
        problems: {path: reason} of the parts that could not be.
    """

    rows: int
    new: int
    problems: dict[str, str]


def update(dataset: Dataset, parts: Sequence[Part]) -> Update:
    """Adds the parts that are not in the dataset yet; reads all again where it cannot tell which are.

    The file is written under a temporary name and renamed, the manifest after it: a reader, or a collector that was
    cut off, sees the old dataset or the new one. A manifest that does not belong to the file is not believed.
    """
    known = _known(dataset)
    present = {part.path: [part.size, part.modified] for part in parts}
    if any(present.get(path) != identity for path, identity in known.items()):
        known = {}
    fresh = [part for part in parts if part.path not in known]
    table, problems = read_all(fresh, dataset.schema, dataset.needed)
    read = [part for part in fresh if part.path not in problems]
    if known and not read:
        return Update(pq.read_metadata(dataset.path).num_rows, 0, problems)
    if known:
        table = join([_held(dataset), table])
    table, rows = dataset.last(table)
    included = {part.path: present[part.path] for part in parts if part.path in known or part.path not in problems}
    _write(dataset, table, rows, included)
    return Update(len(rows), len(read), problems)


def read_frame(path: Path, columns: Sequence[str] | None = None,
               filters: Sequence[tuple[str, str, object]] | None = None, categories: bool = False,
               ) -> pd.DataFrame:  # fmt: skip
    """Rows of a collected file as pandas takes them best; on request with text as categories, for millions of rows."""
    names = None if columns is None else list(columns)
    table = pq.read_table(path, columns=names, filters=list(filters) if filters else None, partitioning=None)
    if categories:
        for index, field in enumerate(table.schema):
            if field.type == pa.string():
                table = table.set_column(index, field.name, table.column(index).dictionary_encode())
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get)
    return frame


def text_values(path: Path, column: str) -> list[str]:
    """The different values of a text column, sorted."""
    table = pq.read_table(path, columns=[column], read_dictionary=[column], partitioning=None)
    return sorted(value for value in table.column(column).unique().to_pylist() if value is not None)


def _known(dataset: Dataset) -> dict[str, list[int]]:
    """{path: size and time} of the parts in the file, nothing where file and manifest are not of one writing."""
    try:
        manifest = json.loads(dataset.manifest.read_text(encoding="utf-8"))
        metadata = pq.read_schema(dataset.path)
        believed = manifest["token"] == (metadata.metadata or {}).get(_TOKEN, b"").decode()
        known: dict[str, list[int]] = manifest["parts"]
        return known if believed and metadata.equals(_written(dataset)) else {}
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return {}


def _held(dataset: Dataset) -> pa.Table:
    """The rows of the file as parts are read."""
    target = encoded(dataset.schema)
    names = [name for name in target.names if name not in dataset.left_out]
    text = [name for name in names if dataset.schema.field(name).type == pa.string()]
    table = pq.read_table(dataset.path, columns=names, read_dictionary=text, partitioning=None)
    columns = [
        pa.nulls(table.num_rows, field.type) if field.name in dataset.left_out
        else table.column(field.name).cast(field.type)
        for field in target
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=target)


def _written(dataset: Dataset) -> pa.Schema:
    """The schema that readers of the file see: text, which is dictionary-encoded within."""
    finished = dataset.finish(encoded(dataset.schema).empty_table()).schema
    return pa.schema([
        field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
        for field in finished if field.name not in dataset.left_out
    ])  # fmt: skip


def _write(dataset: Dataset, table: pa.Table, rows: np.ndarray, parts: Mapping[str, Sequence[int]]) -> None:
    token = uuid.uuid4().hex
    temporary = dataset.manifest.parent / f"{token}.tmp"
    names = _written(dataset).names

    def group(start: int) -> pa.Table:
        return dataset.finish(table.take(pa.array(rows[start : start + ROWS]))).select(names)

    try:
        for folder in (dataset.path.parent, dataset.manifest.parent):
            folder.mkdir(parents=True, exist_ok=True)
        # A row group at a time, the next while one is written: sorted and beside themselves, all would not fit.
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(group, 0)
            # Arrow's own note of the schema would make readers of encoded text give categories.
            with pq.ParquetWriter(temporary, coming.result().schema, compression="zstd", store_schema=False) as writer:
                writer.add_key_value_metadata({**(dataset.schema.metadata or {}), _TOKEN: token})
                for start in range(ROWS, len(rows) + ROWS, ROWS):
                    ready, coming = coming.result(), pool.submit(group, start)
                    writer.write_table(ready)
        temporary.replace(dataset.path)
        temporary.write_text(json.dumps({"token": token, "parts": parts}), encoding="utf-8")
        temporary.replace(dataset.manifest)
    except OSError as error:
        raise InputError(f"{dataset.path.parent}: cannot be written: {one_line(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)
