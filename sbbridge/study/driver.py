"""Runs a study: search, centre, ablation; resumes whatever is there; leaves a folder that says what happened."""

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from sbbridge import config
from sbbridge.study import design, environment, requirements, sharing
from sbbridge.study.centre import find_centre
from sbbridge.study.folder import StudyFile, now
from sbbridge.study.job import Job
from sbbridge.study.mending import mend, record_search_again
from sbbridge.study.plan import Plan
from sbbridge.study.progress import Progress
from sbbridge.study.proposals import Proposals
from sbbridge.study.store import Store

MARKER = ".ray-session"
"""A file in the output while a Ray of our own runs."""


class Driver:
    """One study in one folder, for one process at a time."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.options, self.preset = plan, plan.options, plan.preset
        self.columns = config.columns(plan.type_)
        self._file = StudyFile(plan, self.columns)
        self.study = self._file.content
        self.store = Store(self.options.storage, self.columns)
        self.url = self.options.optuna_storage or f"sqlite:///{self.options.output / 'optuna.db'}"
        remote = "://" in self.options.storage
        self._location = self.options.storage if remote else str(Path(self.options.storage).resolve())
        # Ray's own state is scratch: without checkpoints of Ray's, no other node reads it
        self._scratch = str(self.options.output / ".ray")
        self._search_study: Any = None
        self.started_ray = False

    def run(self) -> bool:
        """All that is left; True when nothing failed or is missing."""
        clock = time.monotonic()
        outcome = "stopped"
        environment.prepare(local=self.options.address == "local")
        self._open_search()  # what cannot be used is said before anything is trained
        try:
            mend(self.store, self._job, self._measure_again, Progress("records", 0).note)
            self._denoisers()
            self._search()
            self._ablation()
            outcome = "complete" if self._complete() else "incomplete"
        finally:
            if self.started_ray:
                from sbbridge.study import ray_cluster

                ray_cluster.stop(self.options.output / MARKER)
            shutil.rmtree(self._scratch, ignore_errors=True)  # a driver that was killed may have left it, too
            if self.started_ray:
                self.study["trainings"] = sharing.trainings(self.plan.type_, self.store.trial_rows())
                seconds = round(time.monotonic() - clock, 1)
                ended = {"ended": now(), "outcome": outcome, "seconds": seconds, "bytes": self.store.sizes()}
                self.study["sessions"][-1] |= ended
                self._file.write()
        self._bring_home()
        return outcome == "complete"

    def failures(self) -> list[str]:
        """What the newest attempts of failed runs say, each once."""
        return list(dict.fromkeys(row["error"] for row in self.store.trials() if row["status"] == "failed"))

    def _denoisers(self) -> None:
        """Trains what paths are fitted for, before anything waits for it."""
        jobs = [self._job(tree, seed, phase) for tree, seed, phase in self.plan.denoisers]
        completed = self._completed()
        left = [job for job in jobs if job.key not in completed]
        if left:
            progress = Progress("denoisers", len(jobs), len(jobs) - len(left))
            self._run_jobs(left, self._launcher, progress)
            progress.show(final=True)

    def _search(self) -> None:
        from sbbridge.study import search

        study = self._open_search()
        done = search.completed(study)
        if done < self.options.trials and not search.stalled(study, self.options.patience):
            template = self._job({"method": {}, "dataset": ""}, design.SEARCH_SEED, "search")
            progress = Progress("search", self.options.trials, done)
            launch = self._launch(self._launcher, progress)
            fields = self._trial_fields([template], self._metric) | {"curve": self.options.scheduler == "asha"}
            from sbbridge.study import ray_tune

            ray_tune.run_search(
                launch, Proposals(self.plan.space(), fields),
                wanted=self.options.trials - done, url=self.url, name=self.study["optuna"]["study_name"],
                objectives=self.plan.objectives, algorithm=self.options.search_algorithm,
                seed=len(study.get_trials(deepcopy=False)), points=self.plan.points,
                evaluations=self.plan.evaluations if fields["curve"] else None,
                stop=lambda: search.stalled(study, self.options.patience),
            )  # fmt: skip
            progress.show(final=True)
        self._place_centre()

    def _ablation(self) -> None:
        jobs = self._ablation_jobs()
        completed = self._completed()
        left = [job for job in jobs if job.key not in completed]
        progress = Progress("ablation", len(jobs), len(jobs) - len(left))
        for launcher in ("train", "inline"):
            mine = [job for job in left if job.launcher == launcher]
            if mine:
                self._run_jobs(mine, launcher, progress)
        if left:
            progress.show(final=True)

    def _measure_again(self, jobs: list[Job]) -> None:
        progress = Progress("measured again", len(jobs))
        self._run_jobs(jobs, self._launcher, progress)
        progress.show(final=True)

    def _run_jobs(self, jobs: list[Job], launcher: str, progress: Progress) -> None:
        """Runs every job; those of a worker group that broke before their turn go into another one."""
        from sbbridge.study.tasks import primary_metric

        launch = self._launch(launcher, progress, jobs[0].num_workers)
        from sbbridge.study import ray_tune

        while jobs:
            groups: dict[Any, list[Job]] = {}
            for job in jobs:
                groups.setdefault(job.digest if launcher == "train" else job.key, []).append(job)
            configs = [
                self._trial_fields(group, primary_metric(group[0].tree["dataset"])[0]) for group in groups.values()
            ]
            answered = ray_tune.run_jobs(launch, configs)
            if not answered:
                break
            jobs = [job for job in jobs if job.key not in answered]

    def _place_centre(self) -> None:
        """Writes the centre once; it is never computed again."""
        if self.study["centre"] is not None:
            return
        placed = {}
        for dataset in self.plan.bases:
            centre = find_centre(self.plan, dataset, self.store, self._metric)
            if centre is None:
                return
            told = design.design_json(self.plan.definition, self.preset, self.plan.space(dataset), centre)
            placed[dataset] = {"centre": {**centre.as_json(), "chosen_by": self.preset.centre}, "design": told}
        self.study |= next(iter(placed.values()))
        for dataset, problem in self.study.get("problems", {}).items():
            problem |= placed[dataset]
        self._file.write()

    def _ablation_jobs(self) -> list[Job]:
        """Every run of the ablation, done or not; none before the centre is known."""
        problems = self.study.get("problems") or {next(iter(self.plan.bases)): self.study}
        trees = [
            tree for dataset, problem in problems.items() if problem["centre"] is not None
            for tree in design.ablation_trees(
                self.plan.space(dataset), self.preset, design.Centre.read(problem["centre"], self.plan.space(dataset))
            )
        ]  # fmt: skip
        jobs = [self._job(tree, seed, "ablation") for tree in trees for seed in range(self.options.seeds)]
        through_train = self.preset.through_train if self.options.launcher == "auto" else 0
        two = min(2, os.cpu_count() or 1)
        return [
            replace(job, launcher="train", num_workers=two) if index < through_train else job
            for index, job in enumerate(jobs)
        ]  # fmt: skip

    def _completed(self) -> set[tuple[str, str, int]]:
        return {(r["phase"], r["digest"], r["seed"]) for r in self.store.trials() if r["status"] == "completed"}

    def _complete(self) -> bool:
        from sbbridge.study import search

        study = self._open_search()
        searched = search.completed(study) >= self.options.trials or search.stalled(study, self.options.patience)
        jobs = self._ablation_jobs()
        return searched and bool(jobs) and {job.key for job in jobs} <= self._completed()

    def _open_search(self) -> Any:
        """The Optuna study; what a database that is torn or was lost has held is put back from the records."""
        from sbbridge.study import database, search

        if self._search_study is None:
            own = self.options.output / "optuna.db"
            torn = database.set_torn_aside(own) if self.options.optuna_storage is None else None
            study = search.open_study(self.url, self.study["optuna"]["study_name"], self.plan.objectives)
            back = search.put_back(study, self.store, self.plan.space(), self._metric, self.plan.objectives)
            for line in (torn, back):
                if line:
                    Progress("search", self.options.trials).note(line)
            record_search_again(study, self.store, self._searched_job)
            self._search_study = study
        return self._search_study

    def _start(self) -> None:
        if self.started_ray:
            return
        from sbbridge.study import ray_cluster

        options = self.options
        self._resources = replace(requirements.resources(self.plan), storage=self._location)
        self.started_ray = True
        session = {"started": now(), "address": options.address, "num_workers": options.num_workers}
        self.study["sessions"].append(session)  # without its end while it runs, and when it is killed
        self._file.write()
        ray_cluster.start(self._resources, options.output / MARKER)

    def _launch(self, launcher: str, progress: Progress, workers: int | None = None) -> Any:
        """How a phase runs; Ray runs then."""
        self._start()
        from sbbridge.study import ray_tune

        resources = replace(self._resources, workers=workers or self.options.num_workers)
        return ray_tune.Launch(self.store, resources, launcher, progress, self._scratch)

    def _bring_home(self) -> None:
        """Copies what the report reads, where it lies apart."""
        if self._location == str(self.options.output):
            return
        for name in ("records", "artifacts"):
            source, target = f"{self.store.root}/{name}", self.options.output / name
            if self.store.filesystem.get_file_info(source).type == pafs.FileType.Directory:
                target.mkdir(parents=True, exist_ok=True)
                pafs.copy_files(source, str(target), source_filesystem=self.store.filesystem)

    @cached_property
    def _newest_attempt(self) -> int:
        return self.store.newest_attempt()

    @property
    def _metric(self) -> str:
        return str(self.study["primary_metric"]["metric"])

    @property
    def _launcher(self) -> str:
        return requirements.launcher(self.options)

    def _job(self, tree: dict[str, Any], seed: int, phase: str) -> Job:
        from sbbridge.study.trial import digests

        digest, training_digest = digests(tree)
        return Job(
            tree=tree, seed=seed, phase=phase, digest=digest, training_digest=training_digest, location=self._location,
            config_columns=self.columns, study=self.plan.definition.name, launcher=self._launcher,
            num_workers=self.options.num_workers, data_root=self.options.data_root, skip_bad=self.options.skip_bad,
            use_gpu=self.options.use_gpu, timeout=self.options.trial_timeout, after=self._newest_attempt,
        )  # fmt: skip

    def _searched_job(self, choices: Mapping[str, Any]) -> Job:
        return self._job(self.plan.space().tree(choices), design.SEARCH_SEED, "search")

    def _trial_fields(self, jobs: list[Job], metric: str) -> dict[str, Any]:
        """What a Tune trial carries beside what Optuna chooses."""
        return {"jobs": [job.as_dict() for job in jobs], "metric": metric, "nfe": self.preset.centre_nfe,
                "sampler": None, "optuna_number": None, "choices": None, "curve": False, "scratch": self._scratch,
                "resources": self._resources.worker(), "least_workers": self._resources.least_workers}  # fmt: skip
