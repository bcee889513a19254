"""Both phases as Tune runs. Nothing of Ray's own state is read again."""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.error import TuneError

from sbbridge.study.database import in_one_line, open_database
from sbbridge.study.job import Job, trial_row
from sbbridge.study.outcome import NFE, QUALITY
from sbbridge.study.progress import Progress
from sbbridge.study.ray_cluster import DRIVER, LostGroups, Resources, check_alive, concurrent_trials
from sbbridge.study.ray_inline import inline_trial
from sbbridge.study.ray_scheduler import LikeWithLike
from sbbridge.study.ray_search import InOrder, StudySearch
from sbbridge.study.ray_train import train_trial
from sbbridge.study.search import sampler
from sbbridge.study.store import Store

TIMEOUT_GRACE_S = 30.0
"""A trial whose time is up ends itself at its next epoch; one that hangs is ended from outside so much later."""

LOOK_S = 10.0
"""How often the driver looks whether there is a cluster, and what killed worker groups have left in it."""


@dataclass(frozen=True)
class Launch:
    """How a phase runs.

    Attributes:
        store: of the study.
        resources: of a trial.
        launcher: inline or train.
        progress: the line.
        scratch: a folder or URI that all nodes see, for Ray's own state.
    """

    store: Store
    resources: Resources
    launcher: str
    progress: Progress
    scratch: str


class Recorder(tune.Callback):
    """The driver's logger: the one writer of trials' rows.

    Attributes:
        answered: keys of the jobs whose rows it has written.
    """

    def __init__(self, store: Store, progress: Progress, lost: LostGroups | None = None) -> None:
        self._store, self._progress, self._lost = store, progress, lost
        self.answered: set[tuple[str, str, int]] = set()
        self._reported: dict[str, set[int]] = {}
        self._since: dict[str, float] = {}
        self._hung: set[str] = set()
        self._looked = time.monotonic()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Starts its clock."""
        self._since[trial.trial_id] = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Refreshes the line, ends what hangs, and raises ClusterDied where nothing is left to run on."""
        if time.monotonic() - self._looked > LOOK_S:
            check_alive()
            if self._lost:
                self._lost.free()
            self._looked = time.monotonic()
        running = [trial for trial in trials if trial.status == "RUNNING"]
        for trial in running:
            self._end_if_it_hangs(trial)
        self._progress.running = len(running)
        self._progress.show()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Writes a finished job, once; points of a curve are the scheduler's."""
        if result.get("index") not in self._unreported(trial):
            return
        fields, config = json.loads(result["fields"]), trial.config["trial"]
        for note in fields.get("notes", []):
            self._progress.note(note)
        quality, nfe = result[QUALITY], result[NFE]
        metric, dataset = config["metric"].replace("_", " "), config["jobs"][0]["tree"]["dataset"]
        if math.isfinite(quality):
            words = f"{metric} {math.exp(quality):.4g} at NFE {nfe:.0f} (validation)"
            self._progress.better(quality, words, dataset)
        elif fields["status"] == "completed" and config["optuna_number"] is not None and not _has_score(fields, config):
            fields |= {"status": "failed", "error": f"the {metric} on validation is not a finite number"}
        self._write(trial, result["index"], fields)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Writes a trial whose process died: the job that it was at has failed, those behind it were not begun."""
        for index in self._unreported(trial)[:1]:
            died = "the trial's process died (killed, or out of memory)"
            if trial.trial_id in self._hung:
                timeout = trial.config["trial"]["jobs"][index]["timeout"]
                after = f"{TIMEOUT_GRACE_S:g} s after --trial-timeout {timeout:g}"
                died = f"TimeoutError: the trial hung, and was ended {after}"
            self._write(trial, index, {"status": "failed", "error": died})

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Writes a trial that the scheduler has stopped."""
        if trial.config["trial"]["curve"]:
            for index in self._unreported(trial):
                self._write(trial, index, {"status": "pruned"})

    def _unreported(self, trial: Any) -> list[int]:
        reported = self._reported.setdefault(trial.trial_id, set())
        return [index for index in range(len(trial.config["trial"]["jobs"])) if index not in reported]

    def _end_if_it_hangs(self, trial: Any) -> None:
        timeout, since = trial.config["trial"]["jobs"][0]["timeout"], self._since.get(trial.trial_id)
        if timeout is None or since is None or trial.trial_id in self._hung:
            return
        # a worker group reports when all of its jobs are trained
        if time.monotonic() - since > timeout * len(self._unreported(trial)) + TIMEOUT_GRACE_S:
            self._hung.add(trial.trial_id)
            trial.max_failures = 0  # it would hang again
            ray.kill(trial.temporary_state.ray_actor)

    def _write(self, trial: Any, index: int, fields: dict[str, Any]) -> None:
        config = trial.config["trial"]
        job = Job(**config["jobs"][index])
        numbers = [config["optuna_number"]] if config["optuna_number"] is not None else []
        self._reported[trial.trial_id].add(index)
        self.answered.add(job.key)
        self._since[trial.trial_id] = time.monotonic()  # the next job's time begins
        self._store.add_trial(trial_row(job, fields, numbers, config["choices"]))
        failed = fields["status"] == "failed"
        self._progress.failed += failed
        self._progress.done += not failed
        self._progress.show()


def _has_score(fields: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether some sampler at some NFE has one; a trial's own choice may have none in a run that others can use."""
    found = (entry["value"] for entry in fields.get("entries", ()) if entry["metric"] == config["metric"])
    return any(math.isfinite(value) for value in found)


def run_search(launch: Launch, space: Any, *, wanted: int, url: str, name: str, objectives: Sequence[str],
               algorithm: str, seed: int, points: Sequence[Mapping[str, Any]], evaluations: int | None,
               stop: Callable[[], bool]) -> None:  # fmt: skip
    """Runs `wanted` more search trials, resuming the Optuna study at the URL.

    Args:
        launch: how.
        space: Optuna's trial -> a trial's configuration.
        wanted: trials to run.
        url, name: of the Optuna study.
        objectives: what is minimised, as trials report it.
        algorithm: Optuna's sampler, by name.
        seed: of the sampler.
        points: asked first.
        evaluations: of the base's training: the scheduler stops the worse half at a quarter, at half, at all, at twice
            of them, for trainings that take as many, and of paths among fits of one kind and number of steps at each
            point of their curves; None stops none.
        stop: ends the search when it is True.
    """
    search = StudySearch(
        space=space, metric=list(objectives), mode=["min"] * len(objectives), study_name=name,
        storage=open_database(url), sampler=sampler(algorithm, seed),
        points_to_evaluate=[dict(point) for point in points],
    )  # fmt: skip
    scheduler = None if evaluations is None else LikeWithLike(evaluations)
    config = tune.TuneConfig(
        search_alg=search, scheduler=scheduler, num_samples=wanted,
        max_concurrent_trials=concurrent_trials(launch.resources), reuse_actors=launch.launcher == "inline",
    )  # fmt: skip
    with in_one_line(url):
        _fit(launch, stop, config)


def run_jobs(launch: Launch, configs: Sequence[dict[str, Any]]) -> set[tuple[str, str, int]]:
    """Runs one trial a configuration; the keys of the jobs that were answered."""
    recorder = _fit(
        launch, lambda: False,
        tune.TuneConfig(
            search_alg=InOrder([{"trial": config} for config in configs]), num_samples=len(configs),
            max_concurrent_trials=concurrent_trials(launch.resources), reuse_actors=launch.launcher == "inline",
        ),
    )  # fmt: skip
    return recorder.answered


def _fit(launch: Launch, stop: Callable[[], bool], tune_config: tune.TuneConfig) -> Recorder:
    lost = LostGroups() if launch.launcher == "train" else None
    recorder = Recorder(launch.store, launch.progress, lost)
    if launch.launcher == "inline":
        trainable = tune.with_resources(inline_trial, launch.resources.worker())
    else:
        trainable = tune.with_resources(train_trial, DRIVER)
    tuner = tune.Tuner(
        trainable,
        tune_config=tune_config,
        run_config=tune.RunConfig(
            name=f"run-{os.getpid()}-{os.urandom(4).hex()}", storage_path=launch.scratch, verbose=0,
            callbacks=[recorder], failure_config=tune.FailureConfig(max_failures=2), stop=_Patience(stop),
        ),
    )  # fmt: skip
    with _Quiet():
        try:
            tuner.fit()
        except TuneError as error:
            raise _origin(error) from None
    if lost:
        lost.free(over=True)
    return recorder


def _origin(error: BaseException) -> BaseException:
    """What was raised before Tune made a traceback's text of it."""
    inner = error.__cause__ or error.__context__
    return _origin(inner) if isinstance(error, TuneError) and inner else error


class _Patience(tune.Stopper):
    """Ends a Tune run when the study says so."""

    def __init__(self, stop: Callable[[], bool]) -> None:
        self._stop = stop

    def __reduce__(self) -> tuple[Any, ...]:
        return _Patience, (bool,)  # Tune pickles it: without the study and its database's password; nobody reads it

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
