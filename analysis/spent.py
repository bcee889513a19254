"""What runs have cost."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Cost:
    """What a run of a setting cost in the mean; NaN where nothing was recorded.

    Attributes:
        simulation, optimisation: network evaluations.
        denoiser: network evaluations of the training that a path was fitted for; NaN where there is none.
        seconds: see `seconds_of`.
        peak_memory: in bytes.
    """

    simulation: float
    optimisation: float
    denoiser: float
    seconds: float
    peak_memory: float

    @property
    def evaluations(self) -> float:
        """Network evaluations in all."""
        return float(np.nansum([self.simulation, self.optimisation, self.denoiser]))


_COUNTED = ("simulation_evaluations", "optimisation_evaluations", "denoiser_evaluations")


def evaluations_of(run: Mapping[str, Any]) -> int:
    """A run's network evaluations, its denoiser's included, however many paths share it."""
    return sum(int(run.get(name) or 0) for name in _COUNTED)


def cost_of(runs: Sequence[Mapping[str, Any]]) -> Cost:
    """The mean over runs."""
    simulation, optimisation, denoiser = (_mean([run.get(name) for run in runs]) for name in _COUNTED)
    memory = _mean([run["peak_memory_bytes"] for run in runs])
    return Cost(simulation, optimisation, denoiser, _mean([seconds_of(run) for run in runs]), memory)


def seconds_of(run: Mapping[str, Any]) -> float | None:
    """A run's training and evaluation; its last attempt's seconds where it did not come to its end.

    The training is whole whoever did it: what another setting that shares the fit has spent counts, and earlier
    attempts up to their last checkpoint. An LDSB denoiser's own training is a run by itself.
    """
    parts = (run["training_seconds"], run["evaluation_seconds"])
    return run["seconds"] if None in parts else float(sum(parts))


def _mean(values: Sequence[float | None]) -> float:
    known = [float(value) for value in values if value is not None]
    return float(np.mean(known)) if known else math.nan
