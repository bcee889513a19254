"""The `train` launcher: a Tune trial that trains its jobs on one Ray Train worker group."""

import time
from typing import Any

from sbbridge.study.job import Job, execute, one_line
from sbbridge.study.outcome import outcome, point

COLLECTIVE_TIMEOUT_S = 4 * 3600


def train_trial(config: dict[str, Any]) -> None:
    """A Tune trial: trains config["jobs"] one after the other, evaluates each on one worker's share, reports each.

    Starting a worker group takes longer than many a training, so the seeds of a configuration share one. Where it has
    several workers, evaluations run in tasks of their own once it is gone, as many at once as the cluster holds. A job
    that fails ends its group: what was behind it is not reported, and left to the driver.
    """
    import ray
    from ray import tune

    config = config["trial"]
    jobs = [Job(**job) for job in config["jobs"]]
    try:
        trained = run_workers(jobs, config)
    except Exception as error:  # noqa: BLE001  a worker group that cannot run is a failed trial
        trained = [_failure(error) | {"evaluated": True}]
    pending = {
        evaluation(config["resources"]).remote(job.as_dict()): index
        for index, (job, fields) in enumerate(zip(jobs, trained, strict=False)) if not fields["evaluated"]
    }  # fmt: skip
    for index, fields in enumerate(trained):
        if fields.pop("evaluated"):
            tune.report(outcome(config, index, fields))
    while pending:
        (ready,), _ = ray.wait(list(pending), num_returns=1)
        index = pending.pop(ready)
        try:
            fields = ray.get(ready)
        except Exception as error:  # noqa: BLE001  the task's process died more often than Ray tries again
            fields = _failure(error)
        tune.report(outcome(config, index, fields))


def _failure(error: Exception) -> dict[str, Any]:
    return {"status": "failed", "error": one_line(error)}


def evaluation(resources: dict[str, float]) -> Any:
    """A Ray task that evaluates what a job has trained, apart from the trial's own placement."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    anywhere = PlacementGroupSchedulingStrategy(placement_group=None)  # type: ignore[arg-type]  # None leaves Tune's
    return ray.remote(evaluate).options(
        num_cpus=resources["CPU"], num_gpus=resources.get("GPU", 0), max_retries=3, scheduling_strategy=anywhere
    )


def evaluate(job: dict[str, Any]) -> dict[str, Any]:
    """Continues a trained job: its training is done, so it is evaluated."""
    import torch

    mine = Job(**job)
    return execute(mine, device="cuda" if mine.use_gpu and torch.cuda.is_available() else "cpu")


def run_workers(jobs: list[Job], config: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains jobs on one group of workers; a worker that dies is replaced and continues from our checkpoint.

    Returns:
        What every job came to, in their order, and whether there is nothing left to evaluate; a failed one is the last.
    """
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    from sbbridge.study.ray_network import NodeTorchConfig

    first = jobs[0]
    most, least = first.num_workers, min(config["least_workers"], first.num_workers)
    number: Any = (least, most) if least < most else most  # Ray's annotations are those of its first version
    callbacks: Any = [TuneReportCallback()] if config["curve"] else []
    trainer: Any = TorchTrainer(
        work,  # type: ignore[arg-type]  # Ray's annotation forbids the return value that its result carries
        train_loop_config={"jobs": [job.as_dict() for job in jobs], "curve": config["curve"]},
        scaling_config=ray.train.ScalingConfig(
            num_workers=number, use_gpu=first.use_gpu, resources_per_worker=config["resources"]
        ),
        # Ray itself notices workers that die; the others wait while a node copies the data
        torch_config=NodeTorchConfig(backend="nccl" if first.use_gpu else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
        run_config=ray.train.RunConfig(
            name=f"{first.training_digest}-{first.seed}-{time.time_ns()}",
            storage_path=config["scratch"],
            failure_config=ray.train.FailureConfig(max_failures=3),
            callbacks=callbacks,
        ),
    )  # fmt: skip
    trained: list[dict[str, Any]] = trainer.fit().return_value
    return trained


def work(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What every worker runs."""
    import ray.train
    import ray.train.torch
    import torch

    from sbbridge.coupling import DistributedWorkers

    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    progress = (lambda *seen: ray.train.report(point(*seen))) if config["curve"] else None
    workers = DistributedWorkers()
    alone = workers.size == 1  # an evaluation would leave the others idle
    trained: list[dict[str, Any]] = []
    for job in config["jobs"]:
        fields = execute(Job(**job), workers, str(device), evaluate=alone, progress=progress)
        failed = fields["status"] == "failed"
        trained.append(fields | {"evaluated": alone or failed})
        if failed:  # a worker that goes on without this one would wait until its timeout
            torch.distributed.destroy_process_group()
            break
    return trained
