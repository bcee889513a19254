"""From a solution to samples, with every network call counted."""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from sbbridge.methods import Solution
from sbbridge.path import node_times
from sbbridge.rng import Stream
from sbbridge.solvers import BACKWARD, Dynamics, integrate
from sbbridge.types import Field, State, Time


@final
@dataclass(frozen=True)
class Samples:
    """What a sampler made.

    Attributes:
        x: samples of the data, `[n, *shape]`.
        nfe: network calls a sample, counted (a sampler that calls two networks counts both).
        trajectory: `[num_steps + 1, n, *shape]` from prior to data, if asked for.
    """

    x: State
    nfe: int
    trajectory: Tensor | None = None


@torch.no_grad()
def sample(solution: Solution, n: int | None = None, num_steps: int = 20, *, sampler: str = "exponential",
           grid: str = "trailing_uniform", seed: int = 0, x1: Any = None, batch_size: int = 8192,
           trajectory: bool = False) -> Samples:  # fmt: skip
    """Runs the learned backward process from the prior to the data.

    Args:
        n: how many; may be left out where x1 says it.
        num_steps: steps of the grid.
        sampler: exponential, ancestral, euler_maruyama, heun (probability-flow ODE) or ddim (memoryless methods).
        grid: a name of `sbbridge.path.NODE_GRIDS`.
        seed: sample i depends on (seed, i), not on n or batch_size.
        x1: prior points to start from, `[n, *shape]`; drawn from the prior when left out.
        trajectory: keep all states.

    Raises:
        ValueError: an unknown sampler or grid, fewer than one step, or a sampler that needs a field the method lacks.
    """
    if sampler not in BACKWARD:
        raise ValueError(f"unknown sampler {sampler!r} (allowed: {', '.join(BACKWARD)})")
    x1 = None if x1 is None else torch.as_tensor(x1, dtype=torch.get_default_dtype()).to(solution.device)
    n = len(x1) if x1 is not None else n
    if n is None or n < 1:
        raise ValueError(f"n must be >= 1, got {n}")
    reference = solution.problem.reference
    if sampler == "ddim" and not reference.is_memoryless(0.05):
        raise ValueError(f"ddim needs a memoryless reference, this one retains m = {reference.retained_memory:.3g}")
    times = node_times(grid, num_steps, reference.log_snr)
    counter = _Counter()
    dynamics = counter.count(solution.dynamics)
    parts, paths, calls = [], [], 0
    stream = Stream(seed, ("sample",), solution.device)
    for start in range(0, n, batch_size):
        rows = range(start, min(start + batch_size, n))
        x = solution.problem.prior.draw(0, rows, stream.child("prior")) if x1 is None else x1[rows.start : rows.stop]
        counter.calls = 0
        x0, path = integrate(BACKWARD[sampler], dynamics, times, x, rows, stream.child("noise"), trajectory)
        calls = counter.calls
        parts.append(x0)
        paths.append(path)
    whole = torch.cat([path for path in paths if path is not None], dim=1) if trajectory else None
    return Samples(torch.cat(parts), calls, whole)


class _Counter:
    """Counts network calls for one batch."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self, dynamics: Dynamics) -> Dynamics:
        return Dynamics(dynamics.reference, self._wrap(dynamics.control), self._wrap(dynamics.backward_score))

    def _wrap(self, field: Field | None) -> Field | None:
        if field is None:
            return None

        def counted(t: Time, x: State) -> State:
            self.calls += 1
            return field(t, x)

        return counted
