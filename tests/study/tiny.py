"""The smallest trials that still go through every part of the code."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
from torch import Tensor

from sbbridge import config, records
from sbbridge.study.driver import Driver
from sbbridge.study.job import Job, execute, trial_row
from sbbridge.study.progress import Progress
from sbbridge.study.space import resolve
from sbbridge.study.store import Store
from sbbridge.study.trial import TrialConfig, digests
from sbbridge.training.checkpoint import from_bytes

COLUMNS = config.columns(TrialConfig)
TRAINING = {"network.width": 8, "network.depth": 1, "training.batch_size": 128}
EVALUATION = {
    "evaluation.nfe": [1, 4], "evaluation.samplers": ["exponential", "heun"], "evaluation.grids": ["trailing_uniform"],
    "evaluation.draws": 1, "evaluation.paths": 16, "evaluation.n": 400,
}  # fmt: skip
ASBM = {
    "method.simulation.num_steps": 2, "method.cycles": 1, "method.corrector_epochs": 2, "method.adjoint_epochs": 2,
    "method.new_pairs": 256, "method.buffer_size": 384, "method.terminal_samples": 256, "method.backward_pairs": 256,
    "method.backward_epochs": 2,
}  # fmt: skip
SCORE_MATCHING = {
    "method.kind": "score_matching_vp", "method.pairs": 256, "method.epochs": 2, "reference.beta_max": 20.0,
}  # fmt: skip


def tree(changes: Mapping[str, Any] | None = None, method: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A whole configuration: ASBM on digits unless said otherwise."""
    whole = {**TRAINING, **EVALUATION, **(ASBM if method is None else method), **(changes or {})}
    return resolve(TrialConfig, config.dump(TrialConfig()), whole)


def job(location: Path | str, tree_: dict[str, Any], seed: int = 0, phase: str = "ablation", **fields: Any) -> Job:
    digest, training_digest = digests(tree_)
    return Job(tree_, seed, phase, digest, training_digest, str(location), COLUMNS, "test", **fields)


def without_ray(monkeypatch: Any) -> None:
    """The driver runs the ablation's jobs in this process, one after the other."""

    def run_jobs(self: Driver, jobs: list[Job], launcher: str, progress: Progress) -> None:
        for job_ in jobs:
            self.store.add_trial(trial_row(job_, execute(job_), []))

    monkeypatch.setattr(Driver, "_run_jobs", run_jobs)


def weights(location: Path | str, training_digest: str, seed: int = 0) -> dict[str, Tensor]:
    """The tensors of a training's newest checkpoint."""
    _, data = next(Store(str(location), COLUMNS).checkpoints(training_digest, seed))
    return from_bytes(data)[0]


def metrics(folder: Path | str) -> list[dict[str, Any]]:
    """Every row of metrics, deduplicated."""
    filesystem, root = records.open_storage(str(folder))
    paths = records.list_parts(filesystem, f"{root}/records/metrics")
    table, problems = records.read_parts(filesystem, paths, records.METRICS_SCHEMA)
    assert problems == {}
    return records.deduplicate(table.to_pylist(), records.METRIC_KEY)


def measured(folder: Path | str, stage: str = "evaluation") -> dict[tuple[Any, ...], float]:
    """{what was measured: value}, without the identity of the run."""
    names = [name for name in records.METRIC_KEY if name not in ("digest", "seed", "phase")]
    return {tuple(row[n] for n in names): row["value"] for row in metrics(folder) if row["stage"] == stage}


def trials(folder: Path) -> list[dict[str, Any]]:
    """Every row of trials, attempts and all."""
    schema = records.trials_schema(json.loads((folder / "study.json").read_text())["config_columns"])
    filesystem = pafs.LocalFileSystem()
    table, problems = records.read_parts(filesystem, records.list_parts(filesystem, f"{folder}/records/trials"), schema)
    assert problems == {}
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def collected(folder: Path, dataset: str = "trials") -> list[dict[str, Any]]:
    """What analysis made of the records."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(folder / dataset / "part-0.parquet", partitioning=None).to_pylist()
    return rows


def doubled(rows: list[dict[str, Any]], key: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """Keys that more than one row has."""
    return [k for k, count in Counter(tuple(row[name] for name in key) for row in rows).items() if count > 1]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but the lock, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
