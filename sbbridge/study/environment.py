"""Environment variables that Ray reads when it is imported; set before that. Loads no Ray."""

import os
import secrets

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

PASSED_ON = ("SB_DATA_ROOT", "SB_CACHE", "SB_DENOISER", "SB_INCEPTION", "SB_AUTOENCODER", "SB_DEBUG")
"""What of the driver's own environment workers on other nodes are told; nothing else, and no credentials."""

DRIVER_ENVIRONMENT = {
    **WORKER_ENVIRONMENT,
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would swallow Ctrl-C, and the study would go on to its next phase
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),  # snapshots of all trials so far, which nobody reads, the more the longer
}


LOCAL_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # whatever its name: this node's address is 127.0.0.1
    "RAY_AUTH_MODE": "token",
    "RAY_ROTATION_MAX_BYTES": str(32 * 2**20),
    "RAY_ROTATION_BACKUP_COUNT": "2",
}
"""What a Ray of our own runs with: it listens on this machine alone, to those who know a token made for it."""


def worker_environment() -> dict[str, str]:
    """What every worker runs with, on whichever node."""
    return WORKER_ENVIRONMENT | {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def prepare(local: bool) -> None:
    """Sets what the user has not, before Ray is imported.

    Args:
        local: whether the driver starts a Ray of its own.
    """
    for name, value in (DRIVER_ENVIRONMENT | (LOCAL_ENVIRONMENT if local else {})).items():
        os.environ.setdefault(name, value)
    if local and os.environ["RAY_AUTH_MODE"] == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
