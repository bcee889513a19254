"""Diffusion Schrödinger Bridge (De Bortoli et al. 2021, arXiv 2106.01357) and its simplification (Tang et al. 2024)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from sbbridge.config import require, require_finite
from sbbridge.coupling import (
    Batch,
    GeneratedCoupling,
    Generation,
    SimulatedCoupling,
    Simulation,
    TrajectorySource,
    step_pair,
)
from sbbridge.methods.base import Draw, Method, Objective, Run, Solution, Stage
from sbbridge.networks import Network, Part
from sbbridge.objectives import Regression, backward_mean_matching, forward_mean_matching
from sbbridge.problems import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.solvers import Dynamics, time_grid
from sbbridge.types import Field, State


@dataclass(frozen=True)
class AbstractDSB(Method):
    """Iterative proportional fitting on simulated paths: each half fits one process to the other's time reversal.

    Paths are Euler–Maruyama on a uniform grid, as published; the first forward process is the reference.

    Attributes:
        iterations: of backward and forward fits; the last is backward.
        epochs: of one fit; each draws a new cache of paths every `reuse` epochs.
        final_epochs: of the last backward fit.
        num_steps: of the paths (the paper: 20 to 50).
        paths: in a cache.
        steps: optimiser steps an epoch.
        reuse: epochs that use one cache.
        forward_network: of the control, where it differs from the backward network.
    """

    simplified: ClassVar[bool] = False
    elastic: ClassVar[str] = "final_epochs"

    iterations: int = 8
    epochs: int = 4
    final_epochs: int = 8
    num_steps: int = 20
    paths: int = 4096
    steps: int = 64
    reuse: int = 1
    forward_network: Network | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("iterations", "epochs", "final_epochs", "num_steps", "paths", "steps", "reuse"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")

    def cost(self, batch_size: int) -> int:
        def fit(epochs: int, simulated: bool) -> int:
            paths = -(-epochs // self.reuse) * self.paths * self.num_steps * simulated
            targets = 0 if self.simplified or not simulated else 2
            return paths + epochs * self.steps * batch_size * (1 + targets)

        first = fit(self.epochs, simulated=False)
        halves = (2 * self.iterations - 1) * fit(self.epochs, simulated=True)
        return first + halves + fit(self.final_epochs, simulated=True)

    def network_for(self, name: str, network: Network) -> Network:
        """The control may be smaller than the backward network."""
        return network if name == "backward" else self.forward_network or network

    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """Two networks: ∇log phihat_t and ∇log phi_t themselves."""
        return {"control": Part(), "backward": Part()}

    def stages(self, run: Run) -> Iterator[Stage]:
        """(backward, forward) x iterations, backward."""
        for turn in range(self.iterations):
            yield self._backward(run, turn, self.epochs)
            yield self._forward(run, turn)
        yield self._backward(run, self.iterations, self.final_epochs)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """Control and backward score."""
        dynamics = Dynamics(problem.reference, networks["control"], networks["backward"])
        return Solution(problem, self.kind, dynamics, simulation=self._simulation)

    @property
    def _simulation(self) -> Simulation:
        return Simulation("euler_maruyama", self.num_steps, 1.0)

    def _backward(self, run: Run, turn: int, epochs: int) -> Stage:
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

    def _forward(self, run: Run, turn: int) -> Stage:
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
