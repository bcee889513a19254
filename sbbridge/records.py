"""The record schema of a study: what a row of `trials` and of `metrics` is, and how part files are written and read.

A study's folder holds raw append-only parts (`records/trials/*.parquet`, `records/metrics/*.parquet`) and, after
`analysis` has collected them, the deduplicated result (`trials/`, `metrics/`). Every part has one writer, is written
under a temporary name and renamed, and carries the study's full schema. This module needs pyarrow only.
"""

import json
import math
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

SCHEMA_VERSION = 1

TRIAL_KEY = ("phase", "digest", "seed")
METRIC_KEY = (
    "digest", "seed", "phase", "stage", "step", "sampler", "grid", "num_steps", "nfe", "metric", "features", "split",
    "weights", "role",
)  # fmt: skip
CONFIG_TYPES = {"double": pa.float64(), "int64": pa.int64(), "string": pa.string(), "bool": pa.bool_()}

_TRIALS = pa.schema(
    [
        ("study", pa.string()),
        ("phase", pa.string()),  # search | ablation
        ("digest", pa.string()),  # the whole resolved configuration
        ("seed", pa.int64()),
        ("training_digest", pa.string()),  # the configuration without its evaluation
        ("method", pa.string()),
        ("dataset", pa.string()),
        ("config_json", pa.string()),
        ("status", pa.string()),  # completed | failed | pruned | running
        ("error", pa.string()),
        ("optuna_numbers", pa.list_(pa.int64())),
        ("seconds", pa.float64()),
        ("training_seconds", pa.float64()),
        ("evaluation_seconds", pa.float64()),
        ("simulation_evaluations", pa.int64()),  # network calls x samples while simulating training pairs
        ("optimisation_evaluations", pa.int64()),  # network calls x samples inside training steps
        ("network_parameters", pa.int64()),
        ("peak_memory_bytes", pa.int64()),
        ("retained_memory", pa.float64()),  # m = kappa(0, 1) of the reference
        ("terminal_variance", pa.float64()),  # tau^2 = Var(x1 | x0) of the reference
        ("host", pa.string()),
        ("device", pa.string()),
        ("launcher", pa.string()),
        ("num_workers", pa.int64()),
        ("versions", pa.string()),
        ("commit", pa.string()),
        ("attempt", pa.int64()),  # milliseconds since the epoch: the last attempt wins
    ]
)

METRICS_SCHEMA = pa.schema(
    [
        ("digest", pa.string()),
        ("seed", pa.int64()),
        ("phase", pa.string()),
        ("stage", pa.string()),  # e.g. "cycle 2: adjoint", "evaluation"
        ("step", pa.int64()),
        ("sampler", pa.string()),
        ("grid", pa.string()),
        ("num_steps", pa.int64()),
        ("nfe", pa.int64()),  # network calls a sample, counted
        ("metric", pa.string()),
        ("features", pa.string()),
        ("split", pa.string()),  # validation | test | train
        ("weights", pa.string()),  # ema | raw
        ("role", pa.string()),  # model | floor | null
        ("value", pa.float64()),
        ("n", pa.int64()),
        ("attempt", pa.int64()),
    ],
    metadata={"sbbridge_schema_version": str(SCHEMA_VERSION)},
)


def trials_schema(config_columns: Mapping[str, str]) -> pa.Schema:
    """The schema of `trials` for a study whose configuration has these columns.

    Args:
        config_columns: path in the configuration ("reference.beta_max") to one of double, int64, string, bool;
            study.json keeps this mapping under "config_columns". Each becomes a column `config.<path>`.
    """
    columns = [(f"config.{path}", CONFIG_TYPES[kind]) for path, kind in sorted(config_columns.items())]
    metadata = {"sbbridge_schema_version": str(SCHEMA_VERSION)}
    return pa.schema([*_TRIALS, *(pa.field(name, kind) for name, kind in columns)], metadata=metadata)


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a nested configuration by path: {"reference.beta_max": 4.0, …}; lists become JSON text."""
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            leaves.update(flatten_config(value, f"{path}."))
        else:
            leaves[path] = json.dumps(value) if isinstance(value, list | tuple) else value
    return leaves


def trial_row(config: Mapping[str, Any], config_columns: Mapping[str, str], **fields: Any) -> dict[str, Any]:
    """One row of `trials`: the named fields, `config_json`, and a `config.<path>` column for every known leaf."""
    unknown = set(fields) - set(_TRIALS.names)
    if unknown:
        raise KeyError(f"not columns of trials: {sorted(unknown)}")
    leaves = flatten_config(config)
    row: dict[str, Any] = {name: fields.get(name) for name in _TRIALS.names}
    row["config_json"] = json.dumps(config, sort_keys=True)
    for path, kind in config_columns.items():
        value = leaves.get(path)
        row[f"config.{path}"] = str(value) if kind == "string" and value is not None else value
    return row


def metric_row(metric: str, value: float, **fields: Any) -> dict[str, Any]:
    """One row of `metrics`; absent fields are null, a value that is not finite is kept as it is."""
    unknown = set(fields) - set(METRICS_SCHEMA.names)
    if unknown:
        raise KeyError(f"not columns of metrics: {sorted(unknown)}")
    return {
        **dict.fromkeys(METRICS_SCHEMA.names),
        "role": "model",
        **fields,
        "metric": metric,
        "value": value,
    }


def open_storage(location: str) -> tuple[pafs.FileSystem, str]:
    """The file system and root path behind a folder or any URI that pyarrow opens.

    Raises:
        ValueError: the scheme is unknown.
    """
    try:
        if "://" in location:
            filesystem, root = pafs.FileSystem.from_uri(location)
            return filesystem, root
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(f"cannot open the storage {location!r}: {str(error).splitlines()[0]}") from error
    return pafs.LocalFileSystem(), location


def write_part(filesystem: pafs.FileSystem, folder: str, name: str, rows: Sequence[Mapping[str, Any]],
               schema: pa.Schema) -> str:  # fmt: skip
    """Writes one part file under a hidden temporary name and renames it, so that no reader sees a torn file."""
    filesystem.create_dir(folder, recursive=True)
    final = str(PurePosixPath(folder) / f"{name}.parquet")
    temporary = str(PurePosixPath(folder) / f".{name}-{uuid.uuid4().hex[:8]}.tmp")
    pq.write_table(
        pa.Table.from_pylist(list(rows), schema=schema), temporary, filesystem=filesystem, compression="zstd"
    )
    filesystem.move(temporary, final)
    return final


def list_parts(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    """Names of all finished part files below a folder, oldest name first; an absent folder has none."""
    selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
    infos = filesystem.get_file_info(selector)
    return sorted(info.path for info in infos if info.path.endswith(".parquet") and not info.base_name.startswith("."))


def read_parts(filesystem: pafs.FileSystem, paths: Iterable[str], schema: pa.Schema) -> tuple[pa.Table, dict[str, str]]:
    """Reads part files with an explicit schema: absent columns become null, unreadable files are named, not skipped.

    Returns:
        The table, and {path: reason} for every file that could not be read or that has another schema version.
    """
    tables, problems = [], {}
    for path in paths:
        try:
            table = pq.read_table(path, filesystem=filesystem, partitioning=None)
            version = (table.schema.metadata or {}).get(b"sbbridge_schema_version", b"?").decode()
            if version != str(SCHEMA_VERSION):
                raise ValueError(f"schema version {version}, expected {SCHEMA_VERSION}")
            tables.append(_conform(table, schema))
        except (OSError, pa.ArrowException, ValueError) as error:
            problems[path] = str(error).splitlines()[0] if str(error) else type(error).__name__
    return (pa.concat_tables(tables) if tables else schema.empty_table()), problems


def deduplicate(rows: Iterable[dict[str, Any]], key: Sequence[str]) -> list[dict[str, Any]]:
    """One row a key, in order of first appearance: the row with the greatest `attempt` wins, later rows break ties."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        identity = tuple(row[name] for name in key)
        held = best.get(identity)
        if held is None or (row["attempt"] or 0) >= (held["attempt"] or 0):
            best[identity] = row
    return list(best.values())


def is_finite(value: float | None) -> bool:
    """True for a number that may enter a mean."""
    return value is not None and math.isfinite(value)


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type) if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)
