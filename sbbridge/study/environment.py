"""Environment variables that Ray reads when it is imported; set before that. Loads no Ray."""

import os

WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # else every report of a worker group waits up to 2 s
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
"""What the driver and every worker run with."""

DRIVER_ENVIRONMENT = {
    **WORKER_ENVIRONMENT,
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would swallow Ctrl-C, and the study would go on to its next phase
}


def prepare() -> None:
    """Sets what the user has not."""
    for name, value in DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
