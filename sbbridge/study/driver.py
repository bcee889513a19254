"""Runs a study: search, centre, ablation; resumes whatever is there; leaves a folder that says what happened."""

import contextlib
import json
import os
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs

from sbbridge import config
from sbbridge.records import open_storage
from sbbridge.study import design, environment
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
        remote = "://" in self.options.storage
        self._location = self.options.storage if remote else str(Path(self.options.storage).resolve())
        # Ray's own state is scratch, where all nodes see it
        self._scratch = f"{self._location.rstrip('/')}/.ray"
        self.started_ray = False

    def run(self) -> bool:
        """All that is left; True when nothing failed or is missing."""
        session = {"started": now(), "address": self.options.address, "num_workers": self.options.num_workers}
        clock = time.monotonic()
        environment.prepare()
        try:
            self._denoisers()
            self._search()
            self._ablation()
        finally:
            if self.started_ray:
                import ray

                ray.shutdown()
                session |= {"ended": now(), "seconds": round(time.monotonic() - clock, 1)}
                self.study["sessions"].append(session)
                self._file.write()
            with contextlib.suppress(OSError):  # a driver that was killed may have left it, too
                filesystem, scratch = open_storage(self._scratch)
                filesystem.delete_dir(scratch)
        self._bring_home()
        return self._complete()

    def failures(self) -> list[str]:
        """What the newest attempts of failed runs say, each once."""
        return list(dict.fromkeys(row["error"] for row in self.store.trials() if row["status"] == "failed"))

    def _denoisers(self) -> None:
        """Trains what paths are fitted for, before anything waits for it."""
        seeds = [*range(self.options.seeds), *([design.SEARCH_SEED] if self.options.trials else [])]
        trees = [tree for base in self.plan.bases.values() for tree in
                 design.denoiser_trees(self.plan.type_, self.preset, base)]  # fmt: skip
        # those that are arms, too, are run as such: their measurements belong to the ablation
        arms = {
            config.digest(design.arm_tree(self.plan.type_, arm, base, None))
            for base in self.plan.bases.values() for arm in self.preset.arms if arm.denoiser
        }  # fmt: skip
        jobs = []
        for tree, seed in product(trees, seeds):
            phase = "ablation" if config.digest(tree) in arms and seed != design.SEARCH_SEED else "denoiser"
            job = self._job(tree, seed, phase)
            jobs.append(replace(job, launcher=self._launcher, num_workers=self.options.num_workers))
        completed = self._completed()
        left = [job for job in jobs if job.key not in completed]
        if left:
            progress = Progress("denoisers", len(jobs), len(jobs) - len(left))
            self._run_jobs(left, self._launcher, progress)
            progress.show(final=True)

    def _search(self) -> None:
        from sbbridge.study import search

        study = search.open_study(self.url, self.plan.definition.name)
        done = search.completed(study)
        if done < self.options.trials:
            space = SearchSpace(
                design.Space(self.preset.space), self.plan.type_, self.plan.base, self._trial_fields(None)
            )
            self._start()
            from sbbridge.study import ray_tune

            progress = Progress("search", self.options.trials, done)
            ray_tune.run_search(
                space, wanted=self.options.trials - done, url=self.url, name=self.plan.definition.name,
                seed=len(study.get_trials(deepcopy=False)), points=[self._first_point()], store=self.store,
                resources=self._resources, launcher=self._launcher, progress=progress,
                scratch=self._scratch, stop=lambda: search.stalled(study, self.options.patience),
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

    def _run_jobs(self, jobs: list[Job], launcher: str, progress: Progress) -> None:
        self._start()
        from sbbridge.study import ray_tune
        from sbbridge.study.tasks import primary_metric

        configs = [
            {**self._trial_fields(None), "job": job.as_dict(), "metric": primary_metric(job.tree["dataset"])[0]}
            for job in jobs
        ]
        resources = replace(self._resources, workers=jobs[0].num_workers)
        ray_tune.run_jobs(
            configs, store=self.store, resources=resources, launcher=launcher,
            progress=progress, scratch=self._scratch, stop=lambda: False,
        )  # fmt: skip

    def _place_centre(self) -> None:
        """Writes the centre once; it is never computed again."""
        if self.study["centre"] is not None:
            return
        trees, chosen_by, evaluations = self.plan.bases, "preset", None
        if self.preset.centre == "search":
            winner = self._winner()
            if winner is None:
                return
            trees, chosen_by = {winner["dataset"]: json.loads(winner["config_json"])}, "search"
            evaluations = winner["simulation_evaluations"] + winner["optimisation_evaluations"]
        placed = {dataset: self._placed(tree, chosen_by, evaluations) for dataset, tree in trees.items()}
        self.study |= next(iter(placed.values()))
        for dataset, problem in self.study.get("problems", {}).items():
            problem |= placed[dataset]
        self._file.write()

    def _placed(self, tree: dict[str, Any], chosen_by: str, evaluations: int | None) -> dict[str, Any]:
        return {
            "centre": {
                "config": tree, "digest": config.digest(tree), "chosen_by": chosen_by, "evaluations": evaluations,
            },
            "design": design.design_json(self.plan.type_, self.plan.definition, self.preset, tree, evaluations),
        }  # fmt: skip

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

    def _ablation_jobs(self) -> list[Job]:
        """Every run of the ablation, done or not; none before the centre is known."""
        problems = self.study.get("problems", {"": self.study}).values()
        centres = [problem["centre"] for problem in problems if problem["centre"] is not None]
        trees = [
            tree for centre in centres
            for tree in design.ablation_trees(self.plan.type_, self.preset, centre["config"], centre["evaluations"])
        ]  # fmt: skip
        jobs = [self._job(tree, seed, "ablation") for tree in trees for seed in range(self.options.seeds)]
        through_train = self.preset.through_train if self.options.launcher == "auto" else 0
        two = min(2, os.cpu_count() or 1)
        return [
            replace(job, launcher="train", num_workers=two) if index < through_train
            else replace(job, launcher=self._launcher, num_workers=self.options.num_workers)
            for index, job in enumerate(jobs)
        ]  # fmt: skip

    def _completed(self) -> set[tuple[str, str, int]]:
        return {(r["phase"], r["digest"], r["seed"]) for r in self.store.trials() if r["status"] == "completed"}

    def _complete(self) -> bool:
        from sbbridge.study import search

        study = search.open_study(self.url, self.plan.definition.name)
        searched = search.completed(study) >= self.options.trials or search.stalled(study, self.options.patience)
        jobs = self._ablation_jobs()
        return searched and bool(jobs) and {job.key for job in jobs} <= self._completed()

    def _start(self) -> None:
        if self.started_ray:
            return
        from sbbridge.study import ray_tune

        train = self._launcher == "train" or self.preset.through_train > 0
        self._resources = ray_tune.Resources(
            self.options.address, self.options.num_workers, self.options.cpus_per_worker,
            self.options.gpus_per_worker or float(self.options.use_gpu), self.options.max_concurrent, train,
        )  # fmt: skip
        self.started_ray = True
        ray_tune.start(self._resources)

    def _bring_home(self) -> None:
        """Copies what the report reads, where it lies apart."""
        if self._location == str(self.options.output):
            return
        for name in ("records", "artifacts"):
            source, target = f"{self.store.root}/{name}", self.options.output / name
            if self.store.filesystem.get_file_info(source).type == pafs.FileType.Directory:
                target.mkdir(parents=True, exist_ok=True)
                pafs.copy_files(source, str(target), source_filesystem=self.store.filesystem)

    @property
    def _metric(self) -> str:
        return str(self.study["primary_metric"]["metric"])

    @property
    def _launcher(self) -> str:
        if self.options.launcher != "auto":
            return self.options.launcher
        return "inline" if self.options.num_workers == 1 and not self.options.use_gpu else "train"

    def _job(self, tree: dict[str, Any], seed: int, phase: str) -> Job:
        from sbbridge.study.trial import digests

        digest, training_digest = digests(tree)
        return Job(
            tree=tree, seed=seed, phase=phase, digest=digest, training_digest=training_digest, location=self._location,
            config_columns=self.columns, study=self.plan.definition.name, data_root=self.options.data_root,
            skip_bad=self.options.skip_bad, use_gpu=self.options.use_gpu, timeout=self.options.trial_timeout,
        )  # fmt: skip

    def _trial_fields(self, optuna_number: int | None) -> dict[str, Any]:
        resources = {"CPU": self.options.cpus_per_worker}
        if self.options.use_gpu:
            resources["GPU"] = self.options.gpus_per_worker or 1.0
        template = replace(self._job({"method": {}, "dataset": ""}, design.SEARCH_SEED, "search"),
                           launcher=self._launcher, num_workers=self.options.num_workers)  # fmt: skip
        return {"job": template.as_dict(), "metric": self._metric, "nfe": self.preset.centre_nfe, "sampler": None,
                "optuna_number": optuna_number, "resources": resources, "scratch": self._scratch}  # fmt: skip

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
