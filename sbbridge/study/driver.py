"""Runs a study: search, centre, ablation; resumes whatever is there; leaves a folder that says what happened."""

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
import pyarrow.fs as pafs

from sbbridge import config
from sbbridge.config import ConfigurationError
from sbbridge.study import design
from sbbridge.study.definition import Definition, Preset
from sbbridge.study.job import Job, commit, versions
from sbbridge.study.progress import Progress
from sbbridge.study.store import Store

DEFAULT_NFE = 10


@dataclass(frozen=True)
class Options:
    """What the command line said, checked.

    Attributes:
        output: the study's folder.
        storage: where records, checkpoints and artefacts go; the output, or a URI.
        others are the command line's, under their names.
    """

    dataset: str
    preset: str
    output: Path
    storage: str
    trials: int
    seeds: int
    assignments: Mapping[str, Any]
    data_root: str | None = None
    address: str = "local"
    launcher: str = "auto"
    num_workers: int = 1
    use_gpu: bool = False
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    max_concurrent: int | None = None
    trial_timeout: float | None = None
    patience: int | None = None
    optuna_storage: str | None = None
    skip_bad: bool = False


class OutputError(Exception):
    """The output folder cannot be used: it holds something else, or cannot be written."""


@dataclass
class Plan:
    """A study resolved: what it will be, before anything runs."""

    definition: Definition
    preset: Preset
    options: Options
    base: dict[str, Any]
    type_: Any

    @property
    def trainings(self) -> tuple[int, int]:
        """How many the search and the ablation ask for (arms included)."""
        cells = len(design.ablation_cells(self.preset, self.base)) + len(self.preset.arms)
        return self.options.trials, cells * self.options.seeds


def make_plan(definition: Definition, options: Options) -> Plan:
    """Resolves and checks everything that needs no Ray.

    Raises:
        ConfigurationError: naming the field and what is allowed.
    """
    from sbbridge.study.trial import TrialConfig

    preset = definition.presets[options.preset]
    defaults = config.dump(TrialConfig())
    base = design.resolve(TrialConfig, defaults, {**preset.base, "dataset": options.dataset})
    base = design.resolve(TrialConfig, base, options.assignments)
    if options.trial_timeout is not None and options.trial_timeout <= 0:
        raise ConfigurationError(f"--trial-timeout must be > 0, got {options.trial_timeout}")
    # what the user sets is not varied
    preset = replace(
        preset,
        space=tuple(f for f in preset.space if f.path not in options.assignments),
        factors=tuple(f for f in preset.factors if f.path not in options.assignments),
        grid=None if preset.grid and set(preset.grid) & set(options.assignments) else preset.grid,
    )
    design.check_preset(TrialConfig, preset, base)
    for arm in preset.arms:
        design.resolve(TrialConfig, base, arm.overrides)
    return Plan(definition, preset, options, base, TrialConfig)


class Driver:
    """One study in one folder, for one process at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.options, self.preset = plan, plan.options, plan.preset
        self.columns = config.columns(plan.type_)
        self.file = self.options.output / "study.json"
        self.store = Store(self.options.storage, self.columns)
        self.url = self.options.optuna_storage or f"sqlite:///{self.options.output / 'optuna.db'}"
        self.study = self._open()
        self._started_ray = False

    def run(self) -> bool:
        """All that is left; True when nothing failed or is missing."""
        session = {"started": _now(), "address": self.options.address, "num_workers": self.options.num_workers}
        clock = time.monotonic()
        try:
            self._search()
            self._ablation()
        finally:
            if self._started_ray:
                import ray

                ray.shutdown()
                self._clean()
                session |= {"ended": _now(), "seconds": round(time.monotonic() - clock, 1)}
                self.study["sessions"].append(session)
                self._write()
        return self._complete()

    def _search(self) -> None:
        from sbbridge.study import search

        study = search.open_study(self.url, self.plan.definition.name)
        done = search.completed(study)
        if done < self.options.trials:
            space = SearchSpace(design.Space(self.preset.space), self.plan.type_, self.plan.base, self._trial_fields(None))
            progress = Progress("search", self.options.trials, done)
            from sbbridge.study import ray_tune

            self._start()
            ray_tune.run_search(
                space, wanted=self.options.trials - done, url=self.url, name=self.plan.definition.name,
                seed=len(study.get_trials(deepcopy=False)), points=[self._first_point()], store=self.store,
                resources=self._resources, launcher=self._launcher, progress=progress, metric=self._metric,
                scratch=self._scratch, stop=lambda: stalled(study, self.options.patience),
            )  # fmt: skip
            progress.show(final=True)
        self._place_centre()

    def _ablation(self) -> None:
        if self.study["centre"] is None:
            return
        trees = list(
            design.ablation_trees(self.plan.type_, self.preset, self.study["centre"]["config"],
                                  self.study["centre"]["evaluations"])
        )  # fmt: skip
        jobs = [self._job(tree, seed, "ablation") for tree in trees for seed in range(self.options.seeds)]
        completed = {(r["phase"], r["digest"], r["seed"]) for r in self.store.trials() if r["status"] == "completed"}
        through_train = jobs[: self.preset.through_train] if self.options.launcher == "auto" else []
        left = [job for job in jobs if job.key not in completed]
        progress = Progress("ablation", len(jobs), len(jobs) - len(left))
        for launcher in ("train", "inline"):
            mine = [job for job in left if self._launcher_of(job, through_train) == launcher]
            if mine:
                self._run_jobs(mine, launcher, progress)
        if left:
            progress.show(final=True)

    def _run_jobs(self, jobs: list[Job], launcher: str, progress: Progress) -> None:
        from sbbridge.study import ray_tune

        self._start()
        workers = max(self.options.num_workers, 2) if launcher == "train" else 1
        configs = [
            {**self._trial_fields(None), "job": replace(job, launcher=launcher, num_workers=workers).as_dict()} for job in jobs
        ]
        ray_tune.run_jobs(
            configs, store=self.store, resources=replace(self._resources, workers=workers), launcher=launcher,
            progress=progress, metric=self._metric, scratch=self._scratch, stop=lambda: False,
        )  # fmt: skip

    def _place_centre(self) -> None:
        """Writes the centre once; it is never computed again."""
        if self.study["centre"] is not None:
            return
        tree, chosen_by, evaluations = self.plan.base, "preset", None
        if self.preset.centre == "search":
            winner = self._winner()
            if winner is None:
                return
            tree, chosen_by = json.loads(winner["config_json"]), "search"
            evaluations = winner["simulation_evaluations"] + winner["optimisation_evaluations"]
        self.study["centre"] = {
            "config": tree, "digest": config.digest(tree), "chosen_by": chosen_by, "evaluations": evaluations,
        }  # fmt: skip
        self.study["design"] = design.design_json(self.plan.definition, self.preset, tree, evaluations)
        self._write()

    def _winner(self) -> dict[str, Any] | None:
        """The search's training with the best validation quality at no more than `centre_nfe` calls."""
        from sbbridge.study import search

        best: tuple[float, dict[str, Any]] | None = None
        for row in self.store.trials():
            if row["phase"] == "search" and row["status"] == "completed":
                found = self.store.finished(row["training_digest"], row["digest"], row["seed"]) or {}
                quality, _, _ = search.objectives(found, self._metric, self.preset.centre_nfe, None)
                if quality == quality and (best is None or quality < best[0]):
                    best = quality, row
        return best[1] if best else None

    def _complete(self) -> bool:
        from sbbridge.study import search

        rows = [row for row in self.store.trials() if row["status"] == "completed" and row["phase"] == "ablation"]
        _, wanted = self._trainings()
        searched = search.completed(search.open_study(self.url, self.plan.definition.name))
        patient = self.options.patience is not None
        return (searched >= self.options.trials or patient) and len(rows) >= wanted

    def _trainings(self) -> tuple[int, int]:
        centre = self.study["centre"]
        if centre is None:
            return self.plan.trainings
        trees = design.ablation_trees(self.plan.type_, self.preset, centre["config"], centre["evaluations"])
        return self.options.trials, len(list(trees)) * self.options.seeds

    def _open(self) -> dict[str, Any]:
        fresh = self._fresh_study()
        if not self.file.exists():
            self.options.output.mkdir(parents=True, exist_ok=True)
            self.study = fresh
            self._write()
            return fresh
        try:
            held: dict[str, Any] = json.loads(self.file.read_text())
            held["base"], held["study"], held["sessions"]  # noqa: B018
        except (ValueError, KeyError, OSError) as error:
            raise OutputError(f"{self.file} is torn or not a study's: {error} (use --fresh, or another --output)") from None
        for name in ("study", "dataset", "preset"):
            if held[name] != fresh[name]:
                raise OutputError(f"{self.options.output} holds {name} {held[name]!r}, not {fresh[name]!r}"
                                  " (use --fresh, or another --output)")  # fmt: skip
        difference = _first_difference(held["base"], fresh["base"])
        if difference or held["space"] != fresh["space"]:
            raise OutputError(f"{self.options.output} holds another configuration: {difference or 'the space differs'}"
                              " (use --fresh, or another --output)")  # fmt: skip
        held |= {"trials": self.options.trials, "seeds": list(range(self.options.seeds))}
        return held

    def _fresh_study(self) -> dict[str, Any]:
        from sbbridge.study.tasks import primary_metric

        metric, features = primary_metric(self.options.dataset)
        return {
            "schema_version": 1, "study": self.plan.definition.name, "question": self.plan.definition.question,
            "dataset": self.options.dataset, "preset": self.options.preset, "created": _now(),
            "trials": self.options.trials, "seeds": list(range(self.options.seeds)), "base": self.plan.base,
            "space": design.space_json(self.preset),
            "design": design.design_json(self.plan.definition, self.preset, None, None), "centre": None,
            "primary_metric": {"metric": metric, "features": features},
            "objectives": ["log_validation_quality", "nfe"], "config_columns": self.columns,
            "optuna": {"storage": self.options.optuna_storage or "sqlite:///optuna.db",
                       "study_name": self.plan.definition.name},
            "storage": self.options.storage if "://" in self.options.storage else None,
            "versions": versions(), "commit": commit(), "hardware": _hardware(), "sessions": [],
        }  # fmt: skip

    def _write(self) -> None:
        temporary = self.file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.study, indent=1))
        temporary.replace(self.file)

    def _start(self) -> None:
        if self._started_ray:
            return
        from sbbridge.study import ray_tune

        os.environ.update({key: value for key, value in ray_tune.WORKER_ENVIRONMENT.items() if key not in os.environ})
        train = self._launcher == "train" or self.preset.through_train > 0
        self._resources = ray_tune.Resources(
            self.options.address, self.options.num_workers, self.options.cpus_per_worker,
            self.options.gpus_per_worker or float(self.options.use_gpu), self.options.max_concurrent, train,
        )  # fmt: skip
        self._scratch = ray_tune.scratch_folder(self.options.storage, self.options.output)
        self._started_ray = True
        ray_tune.start(self._resources)

    def _clean(self) -> None:
        if "://" not in self._scratch:
            shutil.rmtree(self._scratch, ignore_errors=True)
        if "://" in self.options.storage:  # the report reads the output folder
            source = Store(self.options.storage, self.columns)
            for name in ("records", "artifacts"):
                pafs.copy_files(f"{source.root}/{name}", str(self.options.output / name), source_filesystem=source.filesystem)

    @property
    def _metric(self) -> str:
        return str(self.study["primary_metric"]["metric"])

    @property
    def _launcher(self) -> str:
        if self.options.launcher != "auto":
            return self.options.launcher
        return "inline" if self.options.num_workers == 1 and not self.options.use_gpu else "train"

    def _launcher_of(self, job: Job, through_train: list[Job]) -> str:
        return "train" if job in through_train else self._launcher

    def _job(self, tree: dict[str, Any], seed: int, phase: str) -> Job:
        from sbbridge.study.trial import digests

        digest, training_digest = digests(tree)
        location = self.options.storage if "://" in self.options.storage else str(Path(self.options.storage).resolve())
        return Job(
            tree=tree, seed=seed, phase=phase, digest=digest, training_digest=training_digest, location=location,
            config_columns=self.columns, study=self.plan.definition.name, data_root=self.options.data_root,
            skip_bad=self.options.skip_bad, use_gpu=self.options.use_gpu, timeout=self.options.trial_timeout,
        )  # fmt: skip

    def _trial_fields(self, optuna_number: int | None) -> dict[str, Any]:
        resources = {"CPU": self.options.cpus_per_worker}
        if self.options.use_gpu:
            resources["GPU"] = self.options.gpus_per_worker or 1.0
        template = replace(self._job({"method": {}, "dataset": ""}, design.SEARCH_SEED, "search"),
                           launcher=self._launcher, num_workers=self.options.num_workers)  # fmt: skip
        scratch = str(self.options.output / ".ray") if "://" not in self.options.storage else f"{self.options.storage}/.ray"
        return {"job": template.as_dict(), "metric": self._metric, "nfe": self.preset.centre_nfe, "sampler": None,
                "optuna_number": optuna_number, "resources": resources, "scratch": scratch}  # fmt: skip

    def _first_point(self) -> dict[str, Any]:
        """The preset's own configuration, as a point of the space."""
        point = {}
        for factor in self.preset.space:
            if factor.only_if is not None and point.get(factor.only_if[0]) != factor.only_if[1]:
                continue
            held = self.preset.centre_nfe if factor.path == "nfe" else design.value_at(self.plan.base, factor.path)
            point[factor.path] = held if held in factor.values else factor.values[0]
        return point


class SearchSpace:
    """Optuna's trial -> Ray's configuration; a class, because Ray pickles it."""

    def __init__(self, space: design.Space, type_: Any, base: dict[str, Any], fields: dict[str, Any]) -> None:
        self._space, self._type, self._base, self._fields = space, type_, base, fields

    def __call__(self, trial: Any) -> dict[str, Any]:
        """Suggests, resolves, and packs the job."""
        from sbbridge.study.trial import digests

        suggested = self._space(trial)
        choices = dict(suggested["choices"])
        nfe, sampler = choices.pop("nfe", self._fields["nfe"]), choices.pop("sampler", None)
        tree = design.resolve(self._type, self._base, choices)
        digest, training_digest = digests(tree)
        job = {**self._fields["job"], "tree": tree, "digest": digest, "training_digest": training_digest}
        return {"trial": {**self._fields, "job": job, "nfe": nfe, "sampler": sampler,
                          "optuna_number": suggested["optuna_number"]}}  # fmt: skip


def stalled(study: Any, patience: int | None) -> bool:
    """True when the last `patience` completed trials have left the Pareto front as it was."""
    if patience is None:
        return False
    finished = sorted(
        (t for t in study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"), key=lambda t: t.datetime_complete
    )
    front = {trial.number for trial in study.best_trials}
    last = max((index for index, trial in enumerate(finished) if trial.number in front), default=-1)
    return len(finished) - 1 - last >= patience


def lock(output: Path) -> filelock.FileLock:
    """The one-driver lock of an output folder, taken.

    Raises:
        OutputError: another driver holds it, or the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        held = filelock.FileLock(str(output / ".lock"))
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise OutputError(f"another process is running the study in {output}") from None
    except OSError as error:
        raise OutputError(f"--output {output} cannot be written: {error.strerror or error}") from None
    return held


def move_aside(output: Path) -> None:
    """Renames what is at the output, so that a fresh study can start there."""
    if output.exists():
        output.rename(output.with_name(f"{output.name}.{datetime.now(UTC):%Y%m%d-%H%M%S}"))


def _first_difference(held: Mapping[str, Any], wanted: Mapping[str, Any], path: str = "") -> str | None:
    for key in sorted({*held, *wanted}):
        here, there = held.get(key), wanted.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found = _first_difference(here, there, f"{path}{key}.")
            if found:
                return found
        elif here != there:
            return f"{path}{key} is {here!r} there and {there!r} here"
    return None


def _hardware() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu_count": os.cpu_count(), "gpus": [], "memory_gib": round(memory, 1), "platform": platform.platform()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


Report = Callable[[Path], Path]
