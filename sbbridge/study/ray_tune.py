"""Starting Ray, the `inline` launcher, and both phases as Tune runs. Nothing of Ray's own state is read again."""

import json
import logging
import math
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from ray import tune

from sbbridge.study.environment import WORKER_ENVIRONMENT
from sbbridge.study.job import Job, execute, trial_row
from sbbridge.study.progress import Progress
from sbbridge.study.ray_search import StudySearch
from sbbridge.study.ray_train import train_trial
from sbbridge.study.search import OBJECTIVES, objectives
from sbbridge.study.store import Store


@dataclass(frozen=True)
class Resources:
    """What a trial gets, and how many run at once.

    Attributes:
        address: local, auto or HOST:PORT.
        workers: processes of a `train` trial.
        cpus, gpus: of each worker.
        max_concurrent: trials at once; None fills the cluster.
        needs_train: whether any trial goes through the `train` launcher.
    """

    address: str = "local"
    workers: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    max_concurrent: int | None = None
    needs_train: bool = False


class ResourceError(Exception):
    """The machine or cluster cannot hold a single trial; it would wait for ever."""


def start(resources: Resources) -> None:
    """Starts an own local Ray, or joins the cluster that the user named; never any other.

    Raises:
        ResourceError: not one trial fits.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    common: dict[str, Any] = {"log_to_driver": bool(os.environ.get("SB_DEBUG")), "logging_level": "ERROR"}
    if resources.address == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        ray.init(
            address="local", num_cpus=os.cpu_count(), resources={"train_driver": 1},
            # without the dashboard a stopped TorchTrainer leaks its placement group; inline trials have none
            include_dashboard=resources.needs_train, object_store_memory=200 * 2**20, **common,
        )  # fmt: skip
    else:
        ray.init(address=resources.address, runtime_env={"env_vars": WORKER_ENVIRONMENT}, **common)
    held = ray.cluster_resources()
    wanted = {"CPU": resources.cpus * resources.workers, "GPU": resources.gpus * resources.workers}
    for name, amount in wanted.items():
        # an autoscaling cluster starts nodes when they are asked for
        if amount > held.get(name, 0) and resources.address == "local":
            raise ResourceError(f"one trial needs {amount:g} {name}, this machine has {held.get(name, 0):g}")


def concurrent_trials(resources: Resources) -> int:
    """How many trials fit at once."""
    if resources.max_concurrent:
        return resources.max_concurrent
    held = ray.cluster_resources()
    name, amount = ("GPU", resources.gpus) if resources.gpus else ("CPU", resources.cpus)
    return max(1, int(held.get(name, 0) // (amount * resources.workers)))


def inline_trial(config: dict[str, Any]) -> None:
    """A Tune trial that runs its job in its own process."""
    import torch

    config = config["trial"]
    job = Job(**config["job"])
    device = "cuda" if job.use_gpu and torch.cuda.is_available() else "cpu"
    tune.report(outcome(config, execute(job, device=device)))


def outcome(config: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """What a trial tells the driver: its objectives, and everything that it found as JSON."""
    quality, nfe, sampler = objectives(fields, config["metric"], config["nfe"], config["sampler"])
    return {OBJECTIVES[0]: quality, OBJECTIVES[1]: nfe, "sampler": sampler, "fields": json.dumps(fields)}


class Recorder(tune.Callback):
    """The driver's logger: the one writer of trials' rows."""

    def __init__(self, store: Store, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self._reported: set[str] = set()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Refreshes the line."""
        self._progress.running = sum(trial.status == "RUNNING" for trial in trials)
        self._progress.show()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Writes a finished trial."""
        fields = json.loads(result["fields"])
        fields.pop("entries", None)
        self._reported.add(trial.trial_id)
        self._write(trial, fields)
        quality, nfe = result[OBJECTIVES[0]], result[OBJECTIVES[1]]
        if math.isfinite(quality):
            config = trial.config["trial"]
            metric, dataset = config["metric"].replace("_", " "), config["job"]["tree"]["dataset"]
            words = f"{metric} {math.exp(quality):.4g} at NFE {nfe:.0f} (validation)"
            self._progress.better(quality, words, dataset)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Writes a trial whose process died."""
        if trial.trial_id not in self._reported:
            self._write(trial, {"status": "failed", "error": "the trial's process died (killed, or out of memory)"})

    def _write(self, trial: Any, fields: dict[str, Any]) -> None:
        config = trial.config["trial"]
        job = Job(**config["job"])
        numbers = [config["optuna_number"]] if config["optuna_number"] is not None else []
        self._store.add_trial(trial_row(job, fields, numbers))
        failed = fields["status"] == "failed"
        self._progress.failed += failed
        self._progress.done += not failed
        self._progress.show()


def run_search(space: Any, *, wanted: int, url: str, name: str, seed: int, points: Sequence[dict[str, Any]],
               store: Store, resources: Resources, launcher: str, progress: Progress,
               scratch: str, stop: Callable[[], bool]) -> None:  # fmt: skip
    """Runs `wanted` more search trials, resuming the Optuna study at the URL."""
    search = StudySearch(
        space=space, metric=list(OBJECTIVES), mode=["min", "min"], study_name=name,
        storage=RDBStorage(url), sampler=TPESampler(seed=seed, multivariate=True, constant_liar=True),
        points_to_evaluate=list(points),
    )  # fmt: skip
    _fit(
        tune.TuneConfig(
            search_alg=search, num_samples=wanted, max_concurrent_trials=concurrent_trials(resources),
            reuse_actors=launcher == "inline",
        ),
        None, resources, launcher, Recorder(store, progress), scratch, stop,
    )  # fmt: skip


def run_jobs(configs: Sequence[dict[str, Any]], *, store: Store, resources: Resources, launcher: str,
             progress: Progress, scratch: str, stop: Callable[[], bool]) -> None:  # fmt: skip
    """Runs the ablation's trials, one a configuration."""
    _fit(
        tune.TuneConfig(max_concurrent_trials=concurrent_trials(resources), reuse_actors=launcher == "inline"),
        {"trial": tune.grid_search(list(configs))},
        resources, launcher, Recorder(store, progress), scratch, stop,
    )  # fmt: skip


def _fit(tune_config: tune.TuneConfig, space: dict[str, Any] | None, resources: Resources, launcher: str,
         recorder: Recorder, scratch: str, stop: Callable[[], bool]) -> None:  # fmt: skip
    if launcher == "inline":
        trainable = tune.with_resources(inline_trial, {"CPU": resources.cpus, "GPU": resources.gpus})
    else:
        trainable = tune.with_resources(train_trial, {"train_driver": 0.01})
    tuner = tune.Tuner(
        trainable,
        param_space=space,
        tune_config=tune_config,
        run_config=tune.RunConfig(
            name=f"run-{os.getpid()}-{os.urandom(4).hex()}", storage_path=scratch, verbose=0, callbacks=[recorder],
            failure_config=tune.FailureConfig(max_failures=2), stop=_Patience(stop),
        ),
    )  # fmt: skip
    with _Quiet():
        tuner.fit()


class _Patience(tune.Stopper):
    """Ends a Tune run when the study says so."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._stop()


class _Quiet:
    """Tune prints boxes and tables whatever its verbosity; the study prints one line."""

    def __enter__(self) -> None:
        sys.stdout.flush()
        self._file = tempfile.TemporaryFile()
        self._saved = os.dup(1)
        if not os.environ.get("SB_DEBUG"):
            os.dup2(self._file.fileno(), 1)

    def __exit__(self, *exception: object) -> None:
        sys.stdout.flush()
        os.dup2(self._saved, 1)
        os.close(self._saved)
        self._file.close()
