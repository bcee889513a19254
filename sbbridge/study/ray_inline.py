"""The `inline` launcher: a Tune trial that is its job.

Apart from the driver's side of Tune: a trial's process does not wait for what that imports.
"""

from typing import Any

from ray import tune

from sbbridge.study.job import Job, execute
from sbbridge.study.outcome import outcome, point


def inline_trial(config: dict[str, Any]) -> None:
    """A Tune trial that runs its job in its own process."""
    import torch

    config = config["trial"]
    (job,) = (Job(**job) for job in config["jobs"])
    device = "cuda" if job.use_gpu and torch.cuda.is_available() else "cpu"
    progress = (lambda *seen: tune.report(point(*seen))) if config["curve"] else None
    tune.report(outcome(config, 0, execute(job, device=device, progress=progress)))
