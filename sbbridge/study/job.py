"""A trial as the launchers carry it: plain data in, plain data out, errors included."""

import json
import os
import platform
import subprocess
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from sbbridge.study.outcome import not_finite
from sbbridge.study.store import Store

Progress: TypeAlias = Callable[[int, float], None]


@dataclass(frozen=True)
class Job:
    """One training to run; JSON-able.

    Attributes:
        tree: the whole resolved configuration.
        seed, phase: with the digest, the trial's key.
        digest, training_digest: of the tree.
        location: the store's folder or URI.
        config_columns: of the store.
        study, launcher, num_workers: recorded.
        data_root, skip_bad, use_gpu, timeout (seconds): where and how to run; they do not change the digest.
        after: the newest attempt in the records: clocks differ and are set back, a later attempt still counts as later.
    """

    tree: dict[str, Any]
    seed: int
    phase: str
    digest: str
    training_digest: str
    location: str
    config_columns: dict[str, str]
    study: str
    launcher: str = "inline"
    num_workers: int = 1
    data_root: str | None = None
    skip_bad: bool = False
    use_gpu: bool = False
    timeout: float | None = None
    after: int = 0

    def attempt(self) -> int:
        """Milliseconds since the epoch, or what is needed to be later than the attempts before."""
        return max(time.time_ns() // 10**6, self.after + 1)

    @property
    def key(self) -> tuple[str, str, int]:
        """(phase, digest, seed)."""
        return self.phase, self.digest, self.seed

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def execute(job: Job, workers: Any = None, device: str = "cpu", *, evaluate: bool = True,
            progress: Progress | None = None) -> dict[str, Any]:  # fmt: skip
    """Runs a job, or finds its result; never raises what a trial can raise.

    Args:
        job: what to run.
        workers: who shares the training.
        device: where networks live.
        evaluate: False ends with the trained network's checkpoint; the same job evaluates it later, elsewhere.
        progress: is told (network evaluations, validation quality) at the points of `evaluation.curve`.

    Returns:
        The fields of the trial's row: status completed or failed, the error in one line, costs.
    """
    attempt = job.attempt()
    fields: dict[str, Any] = {"attempt": attempt, "host": platform.node(), "device": device}
    try:
        fields |= _run(job, attempt, workers, device, evaluate, progress)
        failure, note = not_finite(fields.get("entries", ()))
        if failure:
            return {**fields, "status": "failed", "error": failure}
        return {**fields, "notes": [*fields["notes"], *([note] if note else [])], "status": "completed"}
    except Exception as error:  # noqa: BLE001  a trial that raises is a result: the study goes on
        if os.environ.get("SB_DEBUG"):
            traceback.print_exc()
        return {**fields, "status": "failed", "error": one_line(error)}


def trial_row(job: Job, fields: dict[str, Any], optuna_numbers: list[int],
              optuna_choices: dict[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
    """The row of `trials` that a job's outcome makes."""
    from sbbridge import records

    told = {name: value for name, value in fields.items() if name not in ("entries", "notes")}
    return records.trial_row(
        job.tree, job.config_columns, study=job.study, phase=job.phase, digest=job.digest, seed=job.seed,
        training_digest=job.training_digest, method=job.tree["method"]["kind"], dataset=job.tree["dataset"],
        launcher=job.launcher, num_workers=job.num_workers, optuna_numbers=optuna_numbers,
        optuna_choices=json.dumps(optuna_choices) if optuna_choices is not None else None,
        versions=json.dumps(versions()), commit=commit(), **{"attempt": job.attempt(), **told},
    )  # fmt: skip


def one_line(error: BaseException) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def versions() -> dict[str, str]:
    """Versions of what results depend on."""
    names = ("sbbridge", "torch", "ray", "optuna", "numpy", "scipy", "pyarrow")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in names}}


def commit() -> str | None:
    """The commit of this checkout, with + where the tree has changed since; None outside of one."""
    try:
        here = Path(__file__).parent
        command = ["git", "-C", str(here), "describe", "--always", "--dirty=+", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _run(job: Job, attempt: int, workers: Any, device: str, evaluate: bool,
         progress: Progress | None) -> dict[str, Any]:  # fmt: skip
    store = Store(job.location, job.config_columns)

    def finished() -> bytes | None:
        found = store.finished(job.training_digest, job.digest, job.seed)
        return None if found is None else json.dumps(found).encode()

    answer = finished() if workers is None else workers.decide(finished, device)
    if answer is not None:
        return {**json.loads(answer), "notes": []}
    from sbbridge import config
    from sbbridge.study.reporter import StudyReporter
    from sbbridge.study.trial import TrialConfig, run_trial

    reporter = StudyReporter(
        store, training_digest=job.training_digest, digest=job.digest, seed=job.seed, phase=job.phase,
        attempt=attempt, workers=workers, device=device, timeout=job.timeout, progress=progress,
    )  # fmt: skip
    fields = run_trial(config.parse(TrialConfig, job.tree), job.seed, reporter, job.data_root, job.skip_bad, evaluate)
    if evaluate and reporter.workers.rank == 0:
        store.finish(job.training_digest, job.digest, job.seed, {**fields, "entries": reporter.entries})
    return {**fields, "entries": reporter.entries, "notes": reporter.notes}
