"""Diffusion Schrödinger Bridge Matching (Shi et al. 2023, arXiv 2303.16852)."""

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from sbbridge.config import require
from sbbridge.coupling import (
    AbstractCoupling,
    Batch,
    BufferSource,
    GeneratedCoupling,
    Generation,
    IndependentCoupling,
    ReferenceCoupling,
    SimulatedCoupling,
    Simulation,
)
from sbbridge.methods import cost
from sbbridge.methods.alternating import AbstractAlternating
from sbbridge.methods.base import Draw, Objective, Run, Solution, Stage
from sbbridge.methods.prediction import BackwardScore
from sbbridge.objectives import Regression, forward_bridge_matching
from sbbridge.problems import BridgeProblem
from sbbridge.sde import AbstractLinearSDE
from sbbridge.solvers import Dynamics
from sbbridge.types import Field, State, Time, expand_like

SDE_SCHEMES = ("exponential", "exponential_heun", "ancestral", "euler_maruyama")
LAST_TIME = 0.99
"""The forward network is called at most here: near 1 the division by sqrt(V(t, 1)) would blow its errors up."""


@dataclass(frozen=True)
class AbstractDSBM(AbstractAlternating):
    """Alternates Markovian projections of the other process's pairs, joined by the reference's bridges.

    Attributes:
        new_pairs: simulated before every `reuse` epochs.
        buffer_size: pairs that a fit's FIFO buffer keeps.
        reuse: epochs that use the same pairs.
        simulation: of forward paths; generation: of backward ones.
    """

    new_pairs: int = 8192
    buffer_size: int = 32768
    reuse: int = 1
    simulation: Simulation = Simulation("exponential_heun", 8)
    generation: Generation = Generation("exponential_heun", 8)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("new_pairs", "buffer_size", "reuse"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        scheme = self.generation.scheme
        require(scheme in SDE_SCHEMES, f"generation.scheme must be one of {', '.join(SDE_SCHEMES)}, got {scheme}")

    def cost(self, batch_size: int) -> int:
        forward, backward = cost.forward_calls(self.simulation), cost.backward_calls(self.generation)

        def fit(epochs: int, calls: int) -> int:
            return cost.buffer(self.new_pairs, self.buffer_size, epochs, batch_size, calls=calls, every=self.reuse)

        halves = fit(self.epochs, 0) + (self.iterations - 1) * fit(self.epochs, forward)
        return halves + self.iterations * fit(self.epochs, backward) + fit(self.final_epochs, forward)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """Control and backward score: the networks say sqrt(V(t, 1)) ∇log phi_t and sqrt(V(0, t)) ∇log phihat_t."""
        control = scaled_control(problem.reference, networks["control"])
        dynamics = BackwardScore(problem.reference).dynamics(networks["backward"], control)
        return Solution(problem, self.kind, dynamics, simulation=self.simulation)

    @abc.abstractmethod
    def first_coupling(self, run: Run) -> AbstractCoupling:
        """Where the iteration begins."""

    def backward_stage(self, run: Run, turn: int, epochs: int) -> Stage:
        control = scaled_control(run.problem.reference, run.simulated_field("control"))
        dynamics = Dynamics(run.problem.reference, control)
        coupling = SimulatedCoupling(run.problem.data, dynamics, self.simulation) if turn else self.first_coupling(run)
        objective = BackwardScore(run.problem.reference).regression
        return self._stage(run, f"iteration {turn + 1}: backward", "backward", coupling, objective, epochs)

    def forward_stage(self, run: Run, turn: int) -> Stage:
        prediction = BackwardScore(run.problem.reference)
        dynamics = prediction.dynamics(run.simulated_field("backward"))
        coupling = GeneratedCoupling(run.problem.prior, dynamics, self.generation)

        def objective(batch: Batch, draw: Draw) -> Regression:
            t = draw.time(0.0, LAST_TIME)
            regression = forward_bridge_matching(
                run.problem.reference, t, batch["x0"], batch["x1"], draw.noise(batch["x0"])
            )
            scale = expand_like(run.problem.reference.variance(t, 1.0).sqrt(), regression.x)
            return Regression(t, regression.x, scale * regression.target)

        return self._stage(run, f"iteration {turn + 1}: forward", "control", coupling, objective, self.epochs)

    def _stage(self, run: Run, name: str, network: str, coupling: AbstractCoupling, objective: Objective,
               epochs: int) -> Stage:  # fmt: skip
        source = BufferSource(
            coupling, self.new_pairs, self.buffer_size, run.stream.child(name), run.workers, self.reuse
        )
        return Stage(name, network, source, objective, epochs, sampled=network == "backward")


@final
@dataclass(frozen=True)
class DSBMIMF(AbstractDSBM):
    """DSBM that begins with independent pairs: iterative Markovian fitting."""

    kind: Literal["dsbm_imf"] = field(default="dsbm_imf", kw_only=True, repr=False)

    def first_coupling(self, run: Run) -> AbstractCoupling:
        """Independent ends."""
        return IndependentCoupling(run.problem.data, run.problem.prior)


@final
@dataclass(frozen=True)
class DSBMIPF(AbstractDSBM):
    """DSBM that begins with the reference's own pairs: iterative proportional fitting."""

    kind: Literal["dsbm_ipf"] = field(default="dsbm_ipf", kw_only=True, repr=False)

    def first_coupling(self, run: Run) -> AbstractCoupling:
        """Data through the uncontrolled reference."""
        return ReferenceCoupling(run.problem.data, run.problem.reference)


def scaled_control(reference: AbstractLinearSDE, network: Field) -> Field:
    """∇log phi_t from a network that says sqrt(V(t, 1)) ∇log phi_t."""

    def control(t: Time, x: State) -> State:
        t = t.clamp(max=LAST_TIME)
        return network(t, x) / expand_like(reference.variance(t, 1.0).sqrt(), x)

    return control
