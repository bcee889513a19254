"""The `train` launcher: a Tune trial that runs one job on a Ray Train worker group."""

import time
from typing import Any

from sbbridge.study.job import Job, execute, one_line


def train_trial(config: dict[str, Any]) -> None:
    """A Tune trial: starts a TorchTrainer for config["job"], reports the job's outcome."""
    from ray import tune

    from sbbridge.study.ray_tune import outcome

    config = config["trial"]
    job = Job(**config["job"])
    try:
        fields = run_workers(job, config["resources"], config["scratch"])
    except Exception as error:  # noqa: BLE001  a worker group that cannot run is a failed trial
        fields = {"status": "failed", "error": one_line(error), "attempt": time.time_ns() // 10**6}
    tune.report(outcome(config, fields))


def run_workers(job: Job, resources: dict[str, float], scratch: str) -> dict[str, Any]:
    """Runs the job on `job.num_workers` workers; a worker that dies is replaced and continues from our checkpoint."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer: Any = TorchTrainer(
        work,  # type: ignore[arg-type]  # Ray's annotation forbids the return value that its result carries
        train_loop_config=job.as_dict(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=job.num_workers, use_gpu=job.use_gpu, resources_per_worker=resources
        ),
        torch_config=TorchConfig(backend="nccl" if job.use_gpu else "gloo"),
        run_config=ray.train.RunConfig(
            name=f"{job.training_digest}-{job.seed}-{time.time_ns()}",
            storage_path=scratch,
            failure_config=ray.train.FailureConfig(max_failures=3),
        ),
    )
    result: dict[str, Any] = trainer.fit().return_value
    return result


def work(job: dict[str, Any]) -> dict[str, Any]:
    """What every worker runs."""
    import ray.train.torch
    import torch

    from sbbridge.coupling import DistributedWorkers

    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(1)
    fields = execute(Job(**job), DistributedWorkers(), str(device))
    if fields["status"] == "failed":  # a worker that goes on without this one would wait for it until its timeout
        torch.distributed.destroy_process_group()
    return fields
