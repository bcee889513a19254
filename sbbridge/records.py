"""The record schema of a study: what a row of `trials` and of `metrics` is, and how part files are written and read.

A study's folder holds raw append-only parts (`records/trials/*.parquet`, `records/metrics/*.parquet`) and, after
`analysis` has collected them, the deduplicated result (`trials/`, `metrics/`). Every part has one writer, is written
whole or not at all, and carries the study's full schema. This module needs pyarrow only.
"""

import contextlib
import json
import math
import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

SCHEMA_VERSION = 1

TRIAL_KEY = ("phase", "digest", "seed")
METRIC_KEY = (
    "digest", "seed", "phase", "stage", "step", "sampler", "grid", "num_steps", "nfe", "metric", "features", "split",
    "weights", "role",
)  # fmt: skip
OBJECT_STORES = ("s3", "gcs", "abfs")
"""pyarrow's names of file systems where a put is whole or not at all."""

S3_ATTEMPTS, S3_CONNECT_S, S3_REQUEST_S = 8, 5.0, 20.0
"""How patient a study is with S3: a request's attempts, and what each may take."""

_FEW = 8  # rows of a part

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
        ("optuna_choices", pa.string()),  # JSON: what the search chose under this number, sampler and NFE included
        ("seconds", pa.float64()),
        ("training_seconds", pa.float64()),
        ("evaluation_seconds", pa.float64()),
        ("simulation_evaluations", pa.int64()),  # network calls x samples while simulating training pairs
        ("optimisation_evaluations", pa.int64()),  # network calls x samples inside training steps
        ("denoiser_evaluations", pa.int64()),  # of a path's denoiser, however many paths share it; else null
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


def open_storage(location: str, attempts: int | None = None) -> tuple[pafs.FileSystem, str]:
    """The file system and root path behind a folder or any URI that pyarrow opens.

    Args:
        location: e.g. `/shared/study`, `s3://bucket/prefix?region=eu-central-1`,
            `s3://bucket/prefix?endpoint_override=127.0.0.1:9000&scheme=http`.
        attempts: how often a request to S3 is tried, with growing pauses; S3_ATTEMPTS unless said.

    Raises:
        ValueError: the scheme is unknown, or the URI holds credentials.
    """
    if "://" not in location:
        return pafs.LocalFileSystem(), location
    if "@" in urlsplit(location).netloc:
        raise ValueError("credentials do not belong in a URI, which is recorded (allowed: environment or profile, "
                         "e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)")  # fmt: skip
    try:
        filesystem, root = pafs.FileSystem.from_uri(location)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise ValueError(f"cannot open the storage {location!r}: {_first_line(error)}") from error
    if isinstance(filesystem, pafs.S3FileSystem):
        if not root:
            raise ValueError(f"cannot open the storage {location!r}: it names no bucket (s3://BUCKET/PREFIX)")
        filesystem = _patient(filesystem, attempts or S3_ATTEMPTS)
    return filesystem, root


def check_storage(location: str) -> None:
    """Writes and deletes a file, to know before anything is trained that its results can be kept.

    Raises:
        ValueError: the storage cannot be opened or written; one line.
    """
    filesystem, root = open_storage(location, attempts=2)
    probe = str(PurePosixPath(root, f".probe-{uuid.uuid4().hex[:8]}"))
    try:
        write_file(filesystem, probe, b"sbbridge")
        filesystem.delete_file(probe)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{location}: {_first_line(error)}") from None


def write_file(filesystem: pafs.FileSystem, path: str, data: bytes | pa.Buffer) -> None:
    """Writes a file whole or not at all, and its folders where they are absent.

    An object store's put is whole by itself; elsewhere a temporary name, which no reader lists, is renamed.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    place = PurePosixPath(path)
    in_place = filesystem.type_name in OBJECT_STORES
    target = path if in_place else str(place.with_name(f".{place.name}-{uuid.uuid4().hex[:8]}.tmp"))
    try:
        if not in_place:
            filesystem.create_dir(str(place.parent), recursive=True)
        with filesystem.open_output_stream(target) as stream:
            stream.write(data)
        if not in_place:
            filesystem.move(target, path)
    except OSError as error:
        if not in_place:
            with contextlib.suppress(OSError):  # on a full disk it would take what little is left
                filesystem.delete_file(target)
        reason = os.strerror(error.errno) if error.errno else _first_line(error)
        raise OSError(f"cannot write {path}: {reason}") from error


def write_part(filesystem: pafs.FileSystem, folder: str, name: str, rows: Sequence[Mapping[str, Any]],
               schema: pa.Schema) -> str:  # fmt: skip
    """Writes one part file, so that no reader sees a torn one; its path."""
    path = str(PurePosixPath(folder) / f"{name}.parquet")
    buffer = pa.BufferOutputStream()
    table = pa.Table.from_pylist(list(rows), schema=schema)
    # Of a few rows, dictionaries and statistics of 200 columns cost more than the rows.
    pq.write_table(table, buffer, compression="zstd", use_dictionary=len(rows) > _FEW, write_statistics=False,
                   write_page_checksum=True)  # fmt: skip
    write_file(filesystem, path, buffer.getvalue())
    return path


def list_parts(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    """Names of all finished part files below a folder, oldest name first; an absent folder has none."""
    selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
    infos = filesystem.get_file_info(selector)
    return sorted(info.path for info in infos if info.path.endswith(".parquet") and not info.base_name.startswith("."))


def read_parts(filesystem: pafs.FileSystem, paths: Iterable[str], schema: pa.Schema) -> tuple[pa.Table, dict[str, str]]:
    """Reads the schema's columns of part files: absent ones become null, unreadable files are named, not skipped.

    Returns:
        The table, and {path: reason} for every file that could not be read or that has another schema version.
    """
    tables, problems = [], {}
    for path in paths:
        try:
            with filesystem.open_input_file(path) as stream:
                file = pq.ParquetFile(stream, page_checksum_verification=True)  # a disk's holes are zeros
                version = (file.metadata.metadata or {}).get(b"sbbridge_schema_version", b"?").decode()
                if version != str(SCHEMA_VERSION):
                    raise ValueError(f"schema version {version}, expected {SCHEMA_VERSION}")
                tables.append(_conform(file.read(columns=schema.names, use_threads=False), schema))
        except (OSError, pa.ArrowException, ValueError) as error:
            problems[path] = _first_line(error)
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


def without_credentials(text: str) -> str:
    """The text with no user and no password in any of its URLs."""
    return re.sub(r"(?i)([?&](?:user|(?:ssl)?password)=)[^&\s]*", r"\1", re.sub(r"://\S*@", "://", text))


def is_finite(value: float | None) -> bool:
    """True for a number that may enter a mean."""
    return value is not None and math.isfinite(value)


def _patient(filesystem: pafs.S3FileSystem, attempts: int) -> pafs.S3FileSystem:
    """The same with what a URI cannot say: how patient to be, and that a small file is one request."""
    _, (options,) = filesystem.__reduce__()
    retry = pafs.AwsStandardS3RetryStrategy(max_attempts=attempts)
    changes = {"connect_timeout": S3_CONNECT_S, "request_timeout": S3_REQUEST_S, "retry_strategy": retry,
               "allow_delayed_open": True}  # fmt: skip
    return pafs.S3FileSystem(**{**options, **changes})


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type) if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=schema)
