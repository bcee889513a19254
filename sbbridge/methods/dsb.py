"""Diffusion Schrödinger Bridge (De Bortoli et al. 2021, arXiv 2106.01357) and its simplification (Tang et al. 2024)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from sbbridge.config import require
from sbbridge.coupling import (
    Batch,
    GeneratedCoupling,
    Generation,
    SimulatedCoupling,
    Simulation,
    TrajectorySource,
    step_pair,
)
from sbbridge.methods.alternating import AbstractAlternating
from sbbridge.methods.base import Draw, Objective, Run, Solution, Stage
from sbbridge.objectives import Regression, backward_mean_matching, forward_mean_matching
from sbbridge.problems import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.solvers import Dynamics, time_grid
from sbbridge.types import Field, State


@dataclass(frozen=True)
class AbstractDSB(AbstractAlternating):
    """Iterative proportional fitting on simulated paths: each half fits one process to the other's time reversal.

    Paths are Euler–Maruyama on a uniform grid, as published; the first forward process is the reference.

    Attributes:
        num_steps: of the paths (the paper: 20 to 50).
        paths: in a cache.
        steps: optimiser steps an epoch.
        reuse: epochs that use one cache.
    """

    simplified: ClassVar[bool] = False

    num_steps: int = 20
    paths: int = 4096
    steps: int = 64
    reuse: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_steps", "paths", "steps", "reuse"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")

    def cost(self, batch_size: int) -> int:
        def fit(epochs: int, simulated: bool) -> int:
            paths = -(-epochs // self.reuse) * self.paths * self.num_steps * simulated
            targets = 0 if self.simplified or not simulated else 2
            return paths + epochs * self.steps * batch_size * (1 + targets)

        first = fit(self.epochs, simulated=False)
        halves = (2 * self.iterations - 1) * fit(self.epochs, simulated=True)
        return first + halves + fit(self.final_epochs, simulated=True)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """Control and backward score: the networks say ∇log phi_t and ∇log phihat_t themselves."""
        dynamics = Dynamics(problem.reference, networks["control"], networks["backward"])
        return Solution(problem, self.kind, dynamics, simulation=self._simulation)

    @property
    def _simulation(self) -> Simulation:
        return Simulation("euler_maruyama", self.num_steps, 1.0)

    def backward_stage(self, run: Run, turn: int, epochs: int) -> Stage:
        control = run.simulated_field("control") if turn else _zero
        coupling = SimulatedCoupling(run.problem.data, Dynamics(run.problem.reference, control), self._simulation)
        times = time_grid(self.num_steps)
        used = None if self.simplified else control

        def objective(batch: Batch, draw: Draw) -> Regression:
            index, (x, x_next) = _step(batch["path"], draw, self.num_steps)
            t, t_next = times.to(x.device)[index], times.to(x.device)[index + 1]
            return backward_mean_matching(run.problem.reference, t, t_next, x, x_next, used)

        name = f"iteration {turn + 1}: backward"
        return self._stage(run, name, "backward", coupling.trajectories, objective, epochs)

    def forward_stage(self, run: Run, turn: int) -> Stage:
        score = run.simulated_field("backward")
        dynamics = Dynamics(run.problem.reference, backward_score=score)
        generation = Generation("euler_maruyama", self.num_steps, "trailing_uniform")
        coupling = GeneratedCoupling(run.problem.prior, dynamics, generation)
        times = time_grid(self.num_steps)
        used = None if self.simplified else score

        def objective(batch: Batch, draw: Draw) -> Regression:
            # paths run from 1 to 0; turned round, both halves count steps from the data
            index, (x, x_next) = _step(batch["path"].flip(1), draw, self.num_steps)
            t, t_next = times.to(x.device)[index], times.to(x.device)[index + 1]
            return forward_mean_matching(run.problem.reference, t, t_next, x, x_next, used)

        name = f"iteration {turn + 1}: forward"
        return self._stage(run, name, "control", coupling.trajectories, objective, self.epochs)

    def _stage(self, run: Run, name: str, network: str, simulate: Callable[[int, range, Stream], Tensor],
               objective: Objective, epochs: int) -> Stage:  # fmt: skip
        source = TrajectorySource(simulate, self.paths, self.steps, run.stream.child(name), run.workers, self.reuse)
        return Stage(name, network, source, objective, epochs, sampled=network == "backward")


@final
@dataclass(frozen=True)
class DSB(AbstractDSB):
    """Mean matching with the other process's drift at both ends of a step (DSB, Prop. 3)."""

    kind: Literal["dsb"] = field(default="dsb", kw_only=True, repr=False)


@final
@dataclass(frozen=True)
class SimplifiedDSB(AbstractDSB):
    """Targets are the neighbouring states themselves: half the network calls in training (S-DSB, Eq. 11)."""

    simplified: ClassVar[bool] = True

    kind: Literal["simplified_dsb"] = field(default="simplified_dsb", kw_only=True, repr=False)


def _step(path: Tensor, draw: Draw, num_steps: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """A step of every path, its index uniform over the steps."""
    index = (draw.time() * num_steps).long().clamp(max=num_steps - 1)
    return index, step_pair(path, index)


def _zero(t: Tensor, x: State) -> State:
    return torch.zeros_like(x)
