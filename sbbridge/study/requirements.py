"""What a study needs and has not, all in one list, before anything is trained."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from sbbridge import config
from sbbridge.data import DataError
from sbbridge.data.autoencoder import require_autoencoder
from sbbridge.data.placing import is_uri, shown, there
from sbbridge.metrics import MissingWeights, require_inception
from sbbridge.study import environment, tasks
from sbbridge.study.denoiser import published_location, write_down_published
from sbbridge.study.feasible import check_feasible
from sbbridge.study.plan import Options, Plan, variants
from sbbridge.study.tasks.images import inception_location
from sbbridge.study.tasks.latents import autoencoder_location


@dataclass(frozen=True)
class Found:
    """What a study will find.

    Attributes:
        missing: what would stop it, a line each.
        concurrent_trials: how many run at once.
        gpus: names of the GPUs that are there.
    """

    missing: list[str]
    concurrent_trials: int
    gpus: list[str]


def missing(plan: Plan, ask_cluster: bool = True) -> list[str]:
    """What would stop a study, a line each; looks, but opens and copies nothing."""
    return look(plan).missing if ask_cluster or plan.options.address == "local" else _inputs(plan)


def look(plan: Plan) -> Found:
    """Looks for data, weights and processors; on a cluster, every node says what it lacks.

    Raises:
        ResourceError: the cluster does not answer.
    """
    lacking = _inputs(plan)
    options = plan.options
    if options.address != "local":
        environment.prepare(local=False)  # before Ray is imported
        from sbbridge.study import ray_cluster

        cluster = ray_cluster.look(resources(plan))
        return Found(lacking + cluster.missing, cluster.concurrent_trials, cluster.accelerators)
    per_worker = options.gpus_per_worker or float(options.use_gpu)
    gpus = torch.cuda.device_count() if options.use_gpu else 0
    if options.use_gpu and gpus < (wanted := per_worker * (options.min_workers or options.num_workers)):
        lacking.append(f"--use-gpu: one trial needs {wanted:g} GPU, this machine has {gpus}")
    cpus = os.cpu_count() or 1
    if (wanted := options.num_workers * options.cpus_per_worker) > cpus:
        lacking.append(f"--num-workers {options.num_workers} x --cpus-per-worker {options.cpus_per_worker:g} needs "
                       f"{wanted:g} CPUs, this machine has {cpus}")  # fmt: skip
    held, each = (gpus, per_worker) if options.use_gpu else (cpus, options.cpus_per_worker)
    fits = options.max_concurrent or max(1, int(held // (each * options.num_workers)))
    return Found(lacking, fits, [torch.cuda.get_device_name()] if gpus else [])


def launcher(options: Options) -> str:
    """How trials are run: inline, or in a worker group each."""
    if options.launcher != "auto":
        return options.launcher
    return "inline" if options.num_workers == 1 and not options.use_gpu else "train"


def open_data(plan: Plan) -> list[str]:
    """Opens every data set on the driver, so that features are ready for all workers; what is wrong, a line each.

    Networks are held against the data's shape, where only the data tell it, and results are made to belong to the
    denoiser that the user brings.

    Raises:
        ConfigurationError: a network does not go with the data.
    """
    wrong: list[str] = []
    for dataset, base in plan.bases.items():
        with _noting(wrong):
            task = tasks.open_task(config.parse(plan.type_, base), plan.options.data_root, plan.options.skip_bad)
            for name, tree in variants(plan, dataset):
                check_feasible(config.parse(plan.type_, tree()), name, task.problem.shape)
    with _noting(wrong):
        write_down_published(plan.bases.values())
    return wrong


def _inputs(plan: Plan) -> list[str]:
    """Data and weights that the user brings and that are not where they say."""
    lacking: list[str] = []
    for name, base in plan.bases.items():
        with _noting(lacking):
            tasks.require_data(name, plan.options.data_root)
        if name == "ffhq_latent":
            with _noting(lacking):
                require_autoencoder(autoencoder_location())
        if (name in tasks.IMAGES or name == "ffhq_latent") and base["evaluation"]["features"] == "inception":
            with _noting(lacking):
                require_inception(inception_location())
        with _noting(lacking):
            _require_denoiser(base)
    return list(dict.fromkeys(lacking))


def _require_denoiser(base: dict[str, Any]) -> None:
    if (base["method"].get("denoiser") or {}).get("kind") != "published":
        return
    where = published_location()
    if not is_uri(where):
        write_down_published([base])
    elif not there(where):
        raise DataError(f"SB_DENOISER {shown(where)}: no file is there")


def resources(plan: Plan) -> Any:
    """Of a trial."""
    from sbbridge.study.ray_cluster import Resources

    options = plan.options
    return Resources(
        address=options.address, workers=options.num_workers,
        least_workers=options.min_workers or options.num_workers, cpus=options.cpus_per_worker,
        gpus=options.gpus_per_worker or float(options.use_gpu), max_concurrent=options.max_concurrent,
        needs_train=launcher(options) == "train" or plan.preset.through_train > 0, storage=options.storage,
    )  # fmt: skip


@contextmanager
def _noting(lines: list[str]) -> Iterator[None]:
    """What the user has to bring becomes a line."""
    try:
        yield
    except (DataError, MissingWeights) as problem:
        lines.append(" ".join(str(problem).split()))
