"""One row a key: the last attempt wins. By columns and sorted integers, for records of millions of rows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from sbbridge.records import METRIC_KEY, TRIAL_KEY, flatten_config, trials_schema

# Readers ask for a metric: with its rows side by side they skip the rest of the file.
METRIC_ORDER = ("metric", "phase", *(name for name in METRIC_KEY if name not in ("metric", "phase")))
_LARGEST = 2**62
_CONFIG = "config."


def last_metrics(table: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """`sbbridge.records.deduplicate` for `metrics`: which rows stay, by metric, phase, digest, seed and the rest."""
    return table, _winners(table, METRIC_ORDER, _attempts(table))


def last_trials(table: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """The same for `trials`; a row gets every Optuna number that any of its rows was asked under."""
    # Parts come in the order of their names, not of time. Within one attempt "running" is always the earlier word.
    finished = pc.not_equal(table.column("status"), "running").fill_null(True).to_numpy(zero_copy_only=False)
    winners = _winners(table, TRIAL_KEY, _attempts(table) * 2 + finished)
    kept = table.take(pa.array(winners))
    place = kept.schema.get_field_index("optuna_numbers")
    return kept.set_column(place, kept.schema.field(place), _numbers(table, kept)), np.arange(kept.num_rows)


def with_configuration(table: pa.Table, config_columns: Mapping[str, str]) -> pa.Table:
    """`trials` with a `config.<path>` column for every known leaf of `config_json`, each of which is parsed once."""
    schema = trials_schema(config_columns)
    texts = table.column("config_json").combine_chunks()
    texts = texts if isinstance(texts, pa.DictionaryArray) else texts.dictionary_encode()
    leaves = [flatten_config(json.loads(text)) for text in texts.dictionary.to_pylist()]
    columns = []
    for field in schema:
        if field.name.startswith(_CONFIG):
            path = field.name.removeprefix(_CONFIG)
            values = pa.array([_leaf(one.get(path), field.type) for one in leaves], type=field.type)
            columns.append(values.take(texts.indices))
        else:
            columns.append(table.column(field.name).cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _leaf(value: Any, kind: pa.DataType) -> Any:
    return str(value) if kind == pa.string() and value is not None else value


def _winners(table: pa.Table, key: Sequence[str], rank: np.ndarray) -> np.ndarray:
    """Positions of the rows to keep, in the order of the key: of each key the highest rank, of these the last."""
    codes = _combined(table, key)
    order = np.lexsort((rank, codes))
    ordered = codes[order]
    last = np.ones(len(ordered), dtype=bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]


def _combined(table: pa.Table, key: Sequence[str]) -> np.ndarray:
    """One integer a row that sorts as the columns of the key do."""
    combined, size = np.zeros(table.num_rows, dtype=np.int64), 1
    for name in key:
        codes, count = _ranks(table.column(name))
        if size * count > _LARGEST:
            combined, uniques = pd.factorize(combined, sort=True)
            size = len(uniques)
        combined = combined * count + codes
        size *= count
    return combined


def _ranks(column: pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Integers that sort as the values do, nulls last, and how many different ones there may be."""
    if pa.types.is_dictionary(column.type):
        values = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        names = values.dictionary.to_pylist()
        rank = np.empty(len(names) + 1, dtype=np.int64)
        rank[np.argsort(np.array(names, dtype=object), kind="stable")] = np.arange(len(names))
        rank[-1] = len(names)
        codes = values.indices.fill_null(len(names)).to_numpy(zero_copy_only=False)
        return rank[codes], len(names) + 1
    codes, uniques = pd.factorize(column.fill_null(0).to_numpy(), sort=True)
    if column.null_count:
        codes = np.where(column.is_null().to_numpy(), len(uniques), codes)
    return codes, len(uniques) + 1


def _attempts(table: pa.Table) -> np.ndarray:
    return table.column("attempt").fill_null(0).to_numpy()


def _numbers(table: pa.Table, kept: pa.Table) -> pa.Array:
    """For each kept row the sorted union of its key's Optuna numbers."""
    asked = table.select([*TRIAL_KEY, "optuna_numbers"]).to_pandas().explode("optuna_numbers").dropna().astype(object)
    if asked.empty:
        return pa.array([[]] * kept.num_rows, type=pa.list_(pa.int64()))
    by_key = asked.groupby(list(TRIAL_KEY))["optuna_numbers"].agg(lambda numbers: sorted(set(numbers)))
    keys = kept.select(list(TRIAL_KEY)).to_pandas().astype(object)
    found = by_key.reindex(pd.MultiIndex.from_frame(keys))
    return pa.array([item if isinstance(item, list) else [] for item in found], type=pa.list_(pa.int64()))
