"""The coupling that a controlled forward process makes."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sbbridge.config import Forbid, require, require_finite
from sbbridge.coupling.base import AbstractCoupling
from sbbridge.data import AbstractDistribution
from sbbridge.rng import Stream
from sbbridge.solvers import FORWARD, Dynamics, ForwardScheme, integrate, time_grid
from sbbridge.types import Pair


@final
@dataclass(frozen=True)
class Simulation(Forbid):
    """How forward paths are simulated.

    Attributes:
        scheme: exponential_heun (weak order 2, two network calls a step), exponential (order 1, one call; either gives
            the exact Cov(x0, x1) at any number of steps), euler_maruyama (the paper's).
        num_steps: intervals; the paper's "NFE 20" is 19.
        power: t = 1 − (1 − w)^power; 1 is uniform.
        batch_size: paths simulated at once.
    """

    scheme: ForwardScheme = "exponential_heun"
    num_steps: int = 8
    power: float = 2.0
    batch_size: int = 4096

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.num_steps >= 1, f"num_steps must be >= 1, got {self.num_steps}")
        require(self.power > 0, f"power must be > 0, got {self.power}")
        require(self.batch_size >= 1, f"batch_size must be >= 1, got {self.batch_size}")


@final
@dataclass(frozen=True)
class SimulatedCoupling(AbstractCoupling):
    """x0 from the data, x1 by integrating dX = (f + g^2 u) dt + g dW."""

    data: AbstractDistribution
    dynamics: Dynamics
    simulation: Simulation

    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        path = self.trajectories(step, rows, stream, keep=False)
        return Pair(path[0], path[-1])

    @torch.no_grad()
    def trajectories(self, step: int, rows: range, stream: Stream, keep: bool = True) -> Tensor:
        """States from data to prior, `[num_steps + 1, len(rows), *shape]`, or the two ends."""
        times = time_grid(self.simulation.num_steps, self.simulation.power)
        noise, scheme = stream.child("path", step), FORWARD[self.simulation.scheme]
        parts = []
        for start in range(rows.start, rows.stop, self.simulation.batch_size):
            part = range(start, min(start + self.simulation.batch_size, rows.stop))
            x0 = self.data.draw(step, part, stream.child("x0"))
            x1, path = integrate(scheme, self.dynamics, times, x0, part, noise, keep)
            parts.append(torch.stack([x0, x1]) if path is None else path)
        return torch.cat(parts, dim=1)
