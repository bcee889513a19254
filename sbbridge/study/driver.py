"""Runs a study: search, centre, ablation; resumes whatever is there; leaves a folder that says what happened."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from sbbridge import config
from sbbridge.study import design
from sbbridge.study.folder import StudyFile, now
from sbbridge.study.job import Job
from sbbridge.study.plan import Plan
from sbbridge.study.progress import Progress
from sbbridge.study.store import Store


class Driver:
    """One study in one folder, for one process at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.options, self.preset = plan, plan.options, plan.preset
        self.columns = config.columns(plan.type_)
        self._file = StudyFile(plan, self.columns)
        self.study = self._file.content
        self.store = Store(self.options.storage, self.columns)
        self.url = self.options.optuna_storage or f"sqlite:///{self.options.output / 'optuna.db'}"
        self._started_ray = False

    def run(self) -> bool:
        """All that is left; True when nothing failed or is missing."""
        session = {"started": now(), "address": self.options.address, "num_workers": self.options.num_workers}
        clock = time.monotonic()
        try:
            self._search()
            self._ablation()
        finally:
            if self._started_ray:
                import ray

                ray.shutdown()
                self._clean()
                session |= {"ended": now(), "seconds": round(time.monotonic() - clock, 1)}
                self.study["sessions"].append(session)
                self._file.write()
        return self._complete()

    def _search(self) -> None:
        from sbbridge.study import search

        study = search.open_study(self.url, self.plan.definition.name)
        done = search.completed(study)
        if done < self.options.trials:
            space = SearchSpace(
                design.Space(self.preset.space), self.plan.type_, self.plan.base, self._trial_fields(None)
            )
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
            {**self._trial_fields(None), "job": replace(job, launcher=launcher, num_workers=workers).as_dict()}
            for job in jobs
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
        self._file.write()

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
                pafs.copy_files(
                    f"{source.root}/{name}", str(self.options.output / name), source_filesystem=source.filesystem
                )

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
        scratch = (
            str(self.options.output / ".ray") if "://" not in self.options.storage else f"{self.options.storage}/.ray"
        )
        return {"job": template.as_dict(), "metric": self._metric, "nfe": self.preset.centre_nfe, "sampler": None,
                "optuna_number": optuna_number, "resources": resources, "scratch": scratch}  # fmt: skip

    def _first_point(self) -> dict[str, Any]:
        """The preset's own configuration, as a point of the space."""
        point: dict[str, Any] = {}
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
