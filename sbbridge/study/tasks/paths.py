"""What a solution's paths look like, and how local its coupling is: rows of metrics and the arrays of two pictures."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sbbridge.methods import Solution, Unsupported
from sbbridge.metrics import (
    accumulated_drift,
    accumulated_length,
    straightness_per_path,
    trajectory_variance_per_path,
    transport_cost,
)
from sbbridge.path import node_times
from sbbridge.sampling import round_trip, sample
from sbbridge.solvers import time_grid
from sbbridge.types import State

Measures: TypeAlias = tuple[list[dict[str, Any]], dict[str, Tensor]]
"""Rows of metrics, and arrays of an artefact."""
NUM_STEPS = 50
SHOWN_PATHS = 64


def path_measures(solution: Solution, sampler: str, n: int, seed: int) -> Measures:
    """Rows, and the artefact `paths`, of n sampled paths of 50 steps.

    Returns:
        Rows of transport_cost, straightness and trajectory_variance, and accumulated_drift (at t = 1) where there is a
        control. Arrays: `times` `[51]`, falling; `straightness`, `trajectory_variance` `[n]`; `accumulated_length`
        `[51]`; `trajectories` `[51, 64, 2]`; where there is a control, `drift_times`, `accumulated_drift` `[51]`.
    """
    times = node_times("trailing_uniform", NUM_STEPS)
    made = sample(solution, n, NUM_STEPS, sampler=sampler, seed=seed, trajectory=True)
    assert made.trajectory is not None
    path = made.trajectory.cpu()
    straight, variance = straightness_per_path(path, times), trajectory_variance_per_path(path, times)
    entry = {"sampler": sampler, "grid": "trailing_uniform", "num_steps": NUM_STEPS, "nfe": made.nfe, "n": n}
    rows = [
        {**entry, "metric": "transport_cost", "value": transport_cost(path[-1], path[0])},
        {**entry, "metric": "straightness", "value": float(straight.mean())},
        {**entry, "metric": "trajectory_variance", "value": float(variance.mean())},
    ]
    arrays = {
        "times": times,
        "straightness": straight,
        "trajectory_variance": variance,
        "accumulated_length": accumulated_length(path),
        "trajectories": _on_a_plane(path[:, :SHOWN_PATHS], solution.problem.data.sample(512, seed=0)),
    }
    if solution.dynamics.control is not None:
        starts = solution.problem.data.sample(n, seed).to(solution.device)
        drift_times = time_grid(NUM_STEPS, power=2.0)
        drift = accumulated_drift(solution.dynamics, starts, drift_times, seed)
        arrays |= {"drift_times": drift_times, "accumulated_drift": drift}
        rows.append({"metric": "accumulated_drift", "value": float(drift[-1]), "n": n})
    return rows, arrays


def localised(solution: Solution, x0: State, times: tuple[float, ...], sampler: str, seed: int,
              ) -> Iterator[tuple[float, State, float]]:  # fmt: skip
    """Each t with x0 carried to t and back, and mean |x0hat − x0|^2 over that of two different rows of x0.

    1: nothing of x0 is left at t; 0: all of it. Nothing comes where the method cannot do it.
    """
    x = x0.flatten(1).double()
    between = 2 * float(x.var(0).sum())  # the mean of |x_i − x_j|^2 over all i ≠ j
    for t in times:
        try:
            returned = round_trip(solution, x0, t, NUM_STEPS, sampler=sampler, seed=seed).cpu()
        except (Unsupported, ValueError):
            return
        yield t, returned, float((returned.flatten(1).double() - x).square().sum(1).mean()) / between


def _on_a_plane(path: Tensor, data: Tensor) -> Tensor:
    """Paths `[steps, n, *shape]` along the first two principal axes of data `[m, *shape]`, or as they are in 2-D."""
    flat, x = path.flatten(2).float(), data.flatten(1).float().cpu()
    if x.shape[1] <= 2:
        return flat
    axes = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:2]
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    return (flat - x.mean(0)) @ (axes * largest.sign()).mT
