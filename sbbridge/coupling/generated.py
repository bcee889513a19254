"""The coupling that a learned backward process makes."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sbbridge.config import Forbid, require, require_finite
from sbbridge.coupling.base import AbstractCoupling
from sbbridge.data import AbstractDistribution
from sbbridge.path import node_times
from sbbridge.path.nodes import NodeGrid
from sbbridge.rng import Stream
from sbbridge.solvers import BACKWARD, SMALLEST_TIME, BackwardScheme, Dynamics, integrate
from sbbridge.types import Pair

ODE_SCHEMES = ("heun", "euler", "ddim", "edm_heun")


@final
@dataclass(frozen=True)
class Generation(Forbid):
    """How backward paths are simulated in training.

    Attributes:
        scheme: a backward scheme of `sbbridge.solvers`.
        num_steps: steps of the grid.
        grid: where the network is called; by default with short steps near the data.
        final_noise: an SDE's last step keeps its noise instead of denoising.
        batch_size: paths simulated at once.
    """

    scheme: BackwardScheme = "exponential"
    num_steps: int = 20
    grid: NodeGrid = "trailing_quadratic"
    final_noise: bool = True
    batch_size: int = 4096

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.num_steps >= 1, f"num_steps must be >= 1, got {self.num_steps}")
        require(self.batch_size >= 1, f"batch_size must be >= 1, got {self.batch_size}")


@final
@dataclass(frozen=True)
class GeneratedCoupling(AbstractCoupling):
    """x1 from the prior, x0 by integrating the backward process (or the flow) from it."""

    prior: AbstractDistribution
    dynamics: Dynamics
    generation: Generation

    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        path = self.trajectories(step, rows, stream, keep=False)
        return Pair(path[-1], path[0])

    @torch.no_grad()
    def trajectories(self, step: int, rows: range, stream: Stream, keep: bool = True) -> Tensor:
        """States from prior to data, `[num_steps + 1, len(rows), *shape]`, or the two ends."""
        generation, noise = self.generation, stream.child("path", step)
        times = node_times(generation.grid, generation.num_steps, self.dynamics.log_snr)
        if generation.final_noise and generation.scheme not in ODE_SCHEMES:
            times = times.clamp(min=SMALLEST_TIME)
        parts = []
        for start in range(rows.start, rows.stop, generation.batch_size):
            part = range(start, min(start + generation.batch_size, rows.stop))
            x1 = self.prior.draw(step, part, stream.child("x1"))
            x0, path = integrate(BACKWARD[generation.scheme], self.dynamics, times, x1, part, noise, keep)
            parts.append(torch.stack([x1, x0]) if path is None else path)
        return torch.cat(parts, dim=1)
