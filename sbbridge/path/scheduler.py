"""A fitted path as the JSON that `sbbridge.integrations.diffusers.LDSBScheduler` reads; diffusers is not needed."""

from typing import Any

from sbbridge.path.denoiser import Prediction, Timesteps
from sbbridge.path.ratio import RatioPath

FILE = "scheduler_config.json"
"""What diffusers calls it in a folder."""
PREDICTIONS: dict[str, Prediction] = {"epsilon": "noise", "sample": "image", "velocity": "velocity"}
"""eps; x0; eps − x0, which diffusers' flow-matching networks predict. Its `v_prediction`, a eps − b x0, is none."""


def scheduler_config(path: RatioPath, timesteps: Timesteps, denoiser_digest: str = "") -> dict[str, Any]:
    """The arguments of `LDSBScheduler` for a path and how its denoiser's network is called.

    A learned time before a chain's first is that one, as the network is called there.

    Raises:
        ValueError: a or b is not positive, finite and monotone.
    """
    path = path.checked()
    told = {ours: name for name, ours in PREDICTIONS.items()}[timesteps.prediction]
    times = path.times.clamp(min=1 / timesteps.count) if timesteps.chain else path.times
    return {
        "times": times.tolist(), "image": path.image.tolist(), "noise": path.noise.tolist(),
        "momentum": None if path.momentum is None else path.momentum.tolist(), "prediction": told,
        "chain": timesteps.chain, "num_train_timesteps": timesteps.count, "denoiser_digest": denoiser_digest,
    }  # fmt: skip
