"""Reads a study's raw record parts and rewrites the deduplicated `trials/` and `metrics/` that everything else uses."""

import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from analysis.errors import InputError
from sbbridge.records import (
    METRIC_KEY,
    METRICS_SCHEMA,
    SCHEMA_VERSION,
    TRIAL_KEY,
    deduplicate,
    list_parts,
    open_storage,
    read_parts,
    trials_schema,
)

# Nullable types: pandas would otherwise turn a column of counts with one gap into floats.
_PANDAS_TYPES = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


@dataclass
class Collected:
    """What a study's folder holds, deduplicated, and what of it could not be read.

    Attributes:
        folder: the study's folder.
        study: study.json as it was read.
        trials: one row a run (phase, digest, seed); the schema is `sbbridge.records.trials_schema`.
        metrics: one row a measured number; the schema is `sbbridge.records.METRICS_SCHEMA`.
        problems: {path: reason} of every file that could not be used.
    """

    folder: Path
    study: dict[str, Any]
    trials: pd.DataFrame
    metrics: pd.DataFrame
    problems: dict[str, str] = field(default_factory=dict)

    def storage(self) -> tuple[pafs.FileSystem, str]:
        """Where records and artifacts lie: the folder, unless the study was given another storage."""
        return _storage(self.folder, self.study)


def collect(folder: str | Path) -> Collected:
    """Reads all record parts of a study and rewrites its `trials/` and `metrics/` atomically.

    The last attempt of a row wins. Parts that cannot be read are named in `problems`, never passed over in silence.

    Raises:
        InputError: there is no study in the folder, or its study.json cannot be used.
    """
    folder = Path(folder)
    study = read_study(folder)
    try:
        schema = trials_schema(study["config_columns"])
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{folder / 'study.json'}: config_columns is missing or has an unknown type ({error})"
        ) from error
    try:
        filesystem, root = _storage(folder, study)
        trial_parts = list_parts(filesystem, f"{root}/records/trials")
        metric_parts = list_parts(filesystem, f"{root}/records/metrics")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: the study's storage cannot be read: {_one_line(error)}") from error
    trial_table, problems = read_parts(filesystem, trial_parts, schema)
    metric_table, metric_problems = read_parts(filesystem, metric_parts, METRICS_SCHEMA)
    trials = pa.Table.from_pylist(_last_trials(trial_table), schema=schema)
    trials = trials.sort_by([(name, "ascending") for name in TRIAL_KEY])
    metrics = _last_metrics(metric_table)
    _write_table(trials, folder / "trials")
    _write_table(metrics, folder / "metrics")
    return Collected(folder, study, _frame(trials), _frame(metrics), {**problems, **metric_problems})


def read_study(folder: Path) -> dict[str, Any]:
    """study.json of a folder, or an `InputError` that says in one line what is wrong with it."""
    path = folder / "study.json"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    if not path.is_file():
        raise InputError(f"{folder}: not a study (it holds no study.json)")
    try:
        study = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read: {_one_line(error)}") from error
    if not isinstance(study, dict):
        raise InputError(f"{path}: not a study (expected an object, found {type(study).__name__})")
    if study.get("schema_version") != SCHEMA_VERSION:
        found = study.get("schema_version")
        raise InputError(f"{path}: schema version {found}, but this version of sbbridge reads {SCHEMA_VERSION}")
    return study


def _storage(folder: Path, study: dict[str, Any]) -> tuple[pafs.FileSystem, str]:
    return open_storage(study.get("storage") or str(folder))


def _last_trials(table: pa.Table) -> list[dict[str, Any]]:
    """One row a run; the row keeps every Optuna number that any of its rows was asked under."""
    # Parts come in the order of their names, not of time. Within one attempt "running" is always the earlier word.
    rows = sorted(table.to_pylist(), key=lambda row: row["status"] != "running")
    numbers: dict[tuple[Any, ...], set[int]] = {}
    for row in rows:
        numbers.setdefault(tuple(row[name] for name in TRIAL_KEY), set()).update(row["optuna_numbers"] or [])
    kept = deduplicate(rows, TRIAL_KEY)
    return [{**row, "optuna_numbers": sorted(numbers[tuple(row[name] for name in TRIAL_KEY)])} for row in kept]


def _last_metrics(table: pa.Table) -> pa.Table:
    """`deduplicate`, in columns: dense training curves make millions of rows of these."""
    order = table.column("attempt").to_pandas().fillna(0).sort_values(kind="stable").index
    ordered = table.take(pa.array(order.to_numpy()))
    keys = ordered.select(list(METRIC_KEY)).to_pandas(types_mapper=_PANDAS_TYPES.get)
    last = ordered.filter(pa.array((~keys.duplicated(keep="last")).to_numpy()))
    return last.sort_by([(name, "ascending") for name in METRIC_KEY])


def _write_table(table: pa.Table, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".part-0-{uuid.uuid4().hex[:8]}.tmp"
        pq.write_table(table, temporary, compression="zstd")
        temporary.replace(folder / "part-0.parquet")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {_one_line(error)}") from error


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas(types_mapper=_PANDAS_TYPES.get)
    return frame


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
