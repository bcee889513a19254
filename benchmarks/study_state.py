"""What a study's folder holds, for scripts that compare it before and after something happened to it."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from sbbridge import records

RESULTS = "evaluation"
"""The stage whose metrics are results; the others are training curves."""


@dataclass(frozen=True)
class Rows:
    """Rows by what identifies them.

    Attributes:
        keys: of trials and of metrics.
        attempts: {key: attempt} of the ablation's completed runs.
        doubled: keys that more than one row has, each counted once.
        unreadable: files that hold no rows that can be read.
    """

    keys: frozenset[tuple[Any, ...]]
    attempts: Mapping[tuple[Any, ...], int]
    doubled: int
    unreadable: tuple[str, ...] = ()

    @classmethod
    def read(cls, folder: Path) -> "Rows":
        """The raw parts; the newest attempt of a run counts. Nothing, where there is no study yet."""
        if not (folder / "study.json").exists():
            return cls(frozenset(), {}, 0)
        trials, broken = _parts(folder, "trials")
        metrics, further = _parts(folder, "metrics")
        newest = records.deduplicate(trials, records.TRIAL_KEY)
        kept = records.deduplicate(metrics, records.METRIC_KEY)
        return cls.of(newest, kept, tuple({**broken, **further}))

    @classmethod
    def collected(cls, folder: Path) -> "Rows":
        """What analysis has made of them."""
        return cls.of(*(rows(folder, name) for name in ("trials", "metrics")))

    @classmethod
    def of(cls, trials: list[dict[str, Any]], metrics: list[dict[str, Any]],
           unreadable: tuple[str, ...] = ()) -> "Rows":  # fmt: skip
        """Rows of trials, as they are, and of metrics."""
        counted = Counter(_key(row, records.TRIAL_KEY) for row in trials)
        counted.update(_key(row, records.METRIC_KEY) for row in metrics)
        done = {
            _key(row, records.TRIAL_KEY): row["attempt"]
            for row in trials if row["phase"] == "ablation" and row["status"] == "completed"
        }  # fmt: skip
        return cls(frozenset(counted), done, sum(count > 1 for count in counted.values()), unreadable)

    def run_again(self, after: "Rows") -> int:
        """How many runs that were complete have another attempt later."""
        return sum(after.attempts.get(key, attempt) != attempt for key, attempt in self.attempts.items())


def rows(folder: Path, dataset: str) -> list[dict[str, Any]]:
    """What analysis has collected as `trials` or `metrics`."""
    paths = sorted((folder / dataset).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path, partitioning=None).to_pylist()]


def curves(folder: Path) -> dict[str, dict[tuple[str, str, int], float]]:
    """{configuration: {(stage, metric, step): value}} of what trainings have told; times and memory are not told."""
    held = json.loads((folder / "study.json").read_text())
    names = {arm["digest"]: arm["name"] for arm in held["design"]["arms"]} | {held["centre"]["digest"]: "centre"}
    found: dict[str, dict[tuple[str, str, int], float]] = {}
    for row in rows(folder, "metrics"):
        if row["stage"] != RESULTS and not _is_cost(row["metric"]):
            name = f"{names.get(row['digest'], 'denoiser')}, seed {row['seed']}"
            found.setdefault(name, {})[row["stage"], row["metric"], row["step"]] = row["value"]
    return found


def differences(reference: Path, folder: Path) -> tuple[int, float, list[str]]:
    """(numbers of the ablation that both have, their largest relative difference, digests that one has alone).

    Two studies whose search has chosen other centres share few digests, or none.
    """
    mine, theirs = _measured(folder), _measured(reference)
    both = mine.keys() & theirs.keys()
    largest = max((relative(mine[key], theirs[key]) for key in both), default=0.0)
    missing = _digests(reference) ^ _digests(folder) if _centre(reference) == _centre(folder) else set()
    return len(both), largest, sorted(missing)


def relative(a: float, b: float) -> float:
    """Their relative difference; none between two that are not numbers."""
    if a == b or (a != a and b != b):
        return 0.0
    difference = abs(a - b) / max(abs(a), abs(b))
    return difference if difference == difference else float("inf")


def wrong_in_optuna(folder: Path) -> list[str]:
    """What is not as it should be in the search's study: running trials, too few or many, ones that no row tells of."""
    held = json.loads((folder / "study.json").read_text())
    study = optuna.load_study(study_name=held["study"], storage=f"sqlite:///{folder / 'optuna.db'}")
    states = Counter(trial.state.name for trial in study.trials)
    complete = {trial.number for trial in study.trials if trial.state.name == "COMPLETE"}
    told = {number for row in rows(folder, "trials") for number in row["optuna_numbers"] or []}
    wrong = [f"Optuna: {count} {state}" for state, count in states.items() if state in ("RUNNING", "WAITING")]
    if len(complete) != held["trials"]:
        wrong.append(f"Optuna: {len(complete)} COMPLETE, not {held['trials']}")
    return [*wrong, *(f"Optuna: trial {number} has no row" for number in sorted(complete - told))]


def temporary(folder: Path) -> list[str]:
    """Hidden files, but the lock and what analysis remembers of the parts it has collected."""
    kept = (".lock", ".collected")
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob(".*")) if path.name not in kept]


def _parts(folder: Path, dataset: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    held = json.loads((folder / "study.json").read_text())["config_columns"]
    schema = records.trials_schema(held) if dataset == "trials" else records.METRICS_SCHEMA
    filesystem = pafs.LocalFileSystem()
    paths = records.list_parts(filesystem, str(folder / "records" / dataset))
    found, problems = records.read_parts(filesystem, paths, schema)
    return found.to_pylist(), problems


def _key(row: Mapping[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _measured(folder: Path) -> dict[tuple[Any, ...], float]:
    """The ablation's results: timings and memory are not among them."""
    return {
        _key(row, records.METRIC_KEY): row["value"]
        for row in rows(folder, "metrics")
        if row["phase"] == "ablation" and row["stage"] == RESULTS
        and not _is_cost(row["metric"])
    }  # fmt: skip


def _is_cost(metric: str) -> bool:
    return metric.endswith("_seconds") or "memory" in metric


def _digests(folder: Path) -> set[str]:
    return {row["digest"] for row in rows(folder, "trials") if row["phase"] == "ablation"}


def _centre(folder: Path) -> Any:
    return json.loads((folder / "study.json").read_text())["centre"]
