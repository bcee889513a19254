"""Adjoint Schrödinger Bridge Matching (Shin et al. 2026, arXiv 2602.15396)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, final

import torch

from sbbridge.config import require, require_finite
from sbbridge.coupling import (
    AbstractCoupling,
    AbstractSource,
    Batch,
    BufferSource,
    FreshSource,
    IndependentCoupling,
    MinibatchOTCoupling,
    ReferenceCoupling,
    SimulatedCoupling,
    Simulation,
    match_moments,
    terminal_test,
)
from sbbridge.methods.backward import backward_known_part, backward_objective, backward_score
from sbbridge.methods.base import Draw, Findings, Method, Run, Solution, Stage
from sbbridge.methods.warm_start import gaussian_approximation
from sbbridge.networks import Network
from sbbridge.objectives import Regression, adjoint_matching, corrector_matching, forward_bridge_matching
from sbbridge.problems import BridgeProblem
from sbbridge.solvers import Dynamics
from sbbridge.types import Field, Pair, State, Time

LAST_TIME = 1 - 1e-3
"""Forward bridge matching is trained for t in [0, LAST_TIME]: its target is unbounded at 1."""


@final
@dataclass(frozen=True)
class ASBM(Method):
    """Stage 1 finds the coupling, stage 2 learns to run it backward.

    Stage 1 alternates corrector matching (h -> ∇log phihat_1, on pairs of the current forward process) and adjoint
    matching (u -> ∇log phi_t, with the terminal adjoint a_1 = ∇E + h); a cycle is one Sinkhorn iteration. Stage 2
    trains a fresh network by backward bridge matching on freshly simulated pairs.

    Attributes:
        coupling: asbm (the cycles), bridge_matching (control fitted to independent pairs, no cycles), minibatch_ot,
            independent (neither simulates); all feed the same stage 2.
        warm_start: none; bridge_matching (the control starts from it); gaussian (the closed-form bridge between
            Gaussians of the ends' moments is a fixed part of every network, which learns the rest).
        cycles: alternations of corrector and adjoint matching; inactive unless coupling is asbm.
        corrector_epochs, adjoint_epochs: epochs of either in a cycle.
        new_pairs: simulated before every epoch of stage 1.
        buffer_size: pairs that the FIFO buffer of stage 1 keeps.
        damping: the adjoint's target is (1 − damping) u_old + damping (−a_t); 1 is undamped.
        simulation: integrator, steps and grid of the forward paths in stage 1 and 2.
        corrector_simulation: of the paths that the corrector is fitted to, where they differ (99 steps in the paper).
        ema_simulation: simulate with averaged weights.
        affine_correction: move simulated x1 affinely to the prior's mean and covariance before stage 2 uses them.
        backward_epochs: epochs of stage 2.
        backward_pairs: pairs of an epoch of stage 2.
        reuse: epochs of stage 2 that use the same simulated pairs.
        backward_learning_rate: of stage 2, where it differs.
        forward_network: of control and corrector, where it differs from the backward network (the paper's is smaller).
        terminal_samples: data points pushed forward for the terminal test after every cycle.
    """

    coupling: Literal["asbm", "bridge_matching", "minibatch_ot", "independent"] = "asbm"
    warm_start: Literal["none", "bridge_matching", "gaussian"] = "none"
    cycles: int = 8
    corrector_epochs: int = 4
    adjoint_epochs: int = 6
    new_pairs: int = 8192
    buffer_size: int = 32768
    damping: float = 1.0
    simulation: Simulation = Simulation()
    corrector_simulation: Simulation | None = None
    ema_simulation: bool = True
    affine_correction: bool = False
    backward_epochs: int = 24
    backward_pairs: int = 32768
    reuse: int = 4
    backward_learning_rate: float | None = None
    forward_network: Network | None = None
    terminal_samples: int = 8192
    kind: Literal["asbm"] = field(default="asbm", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("cycles", "corrector_epochs", "adjoint_epochs", "new_pairs", "buffer_size", "backward_epochs",
                     "backward_pairs", "reuse"):  # fmt: skip
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        rate = self.backward_learning_rate
        require(rate is None or rate > 0, f"backward_learning_rate must be > 0, got {rate}")
        require(0 < self.damping <= 1, f"damping must be in (0, 1], got {self.damping}")
        require(self.terminal_samples >= 2, f"terminal_samples must be >= 2, got {self.terminal_samples}")

    @property
    def has_control(self) -> bool:
        """Whether a forward process is learned."""
        return self.coupling in ("asbm", "bridge_matching")

    def network_for(self, name: str, network: Network) -> Network:
        """Control and corrector may be smaller than the backward network."""
        return network if name == "backward" else self.forward_network or network

    def known_parts(self, problem: BridgeProblem) -> dict[str, Field | None]:
        """Networks: backward always; control and corrector as the coupling needs them."""
        gaussian = gaussian_approximation(problem) if self.warm_start == "gaussian" else None
        known: dict[str, Field | None] = {}
        if self.has_control:
            known["control"] = gaussian.control if gaussian else None
        if self.coupling == "asbm":
            # with no corrector learned yet, h = score of the prior: the memoryless answer, for which a_1 = 0
            known["corrector"] = _at_any_time(gaussian.corrector if gaussian else problem.prior.score)
            if self.damping < 1:
                known["previous_control"] = known["control"]
        known["backward"] = backward_known_part(problem.reference, gaussian.backward_score) if gaussian else None
        return known

    def stages(self, run: Run) -> Iterator[Stage]:
        """[bridge matching] [corrector, adjoint] x cycles, backward."""
        if self.has_control and "bridge_matching" in (self.coupling, self.warm_start):
            yield self._forward_bridge(run)
        if self.coupling == "asbm":
            for cycle in range(1, self.cycles + 1):
                yield self._corrector(run, cycle)
                yield self._adjoint(run, cycle)
        yield Stage(
            name="backward",
            network="backward",
            source=self._backward_source(run),
            objective=backward_objective(run.problem.reference),
            epochs=self.backward_epochs,
            learning_rate=self.backward_learning_rate,
        )

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """Control (if there is one), corrector (if there is one) and backward score."""
        corrector = networks.get("corrector")
        return Solution(
            problem,
            self.kind,
            Dynamics(
                problem.reference, networks.get("control"), backward_score(problem.reference, networks["backward"])
            ),
            (lambda x: corrector(torch.ones(()), x)) if corrector else None,
            self.simulation,
        )

    def _forward_bridge(self, run: Run) -> Stage:
        independent = IndependentCoupling(run.problem.data, run.problem.prior)
        steps = max(1, self.new_pairs // run.batch_size)

        def objective(batch: Batch, draw: Draw) -> Regression:
            t = draw.time(0.0, LAST_TIME)
            return forward_bridge_matching(run.problem.reference, t, batch["x0"], batch["x1"], draw.noise(batch["x0"]))

        return Stage(
            name="forward bridge",
            network="control",
            source=FreshSource(independent, steps, run.stream.child("forward bridge"), run.workers),
            objective=objective,
            epochs=self.cycles * (self.corrector_epochs + self.adjoint_epochs),
            at_end=lambda: self._terminal(run, 0),
        )

    def _corrector(self, run: Run, cycle: int) -> Stage:
        name = f"cycle {cycle}: corrector"
        coupling: AbstractCoupling = self._simulated(run, self.corrector_simulation)
        if cycle == 1 and self.warm_start == "none":
            coupling = ReferenceCoupling(run.problem.data, run.problem.reference)

        def objective(batch: Batch, draw: Draw) -> Regression:
            return corrector_matching(run.problem.reference, batch["x0"], batch["x1"])

        return Stage(name, "corrector", self._buffer(run, coupling, name), objective, self.corrector_epochs)

    def _adjoint(self, run: Run, cycle: int) -> Stage:
        name = f"cycle {cycle}: adjoint"
        corrector = run.simulated_field("corrector")

        def terminal_adjoint(pair: Pair) -> Batch:
            one = torch.ones((), dtype=torch.float64)
            return {"adjoint": corrector(one, pair.x1) - run.problem.prior.score(pair.x1)}

        def objective(batch: Batch, draw: Draw) -> Regression:
            regression = adjoint_matching(
                run.problem.reference, draw.time(), batch["x0"], batch["x1"], batch["adjoint"], draw.noise(batch["x0"])
            )
            return regression if self.damping == 1 else _damped(regression, previous, self.damping)

        previous = run.simulated_field("previous_control") if self.damping < 1 else corrector
        return Stage(
            name,
            "control",
            self._buffer(run, self._simulated(run), name, terminal_adjoint),
            objective,
            self.adjoint_epochs,
            at_start=(lambda: _copy(run)) if self.damping < 1 else None,
            at_end=lambda: self._terminal(run, cycle),
        )

    def _simulated(self, run: Run, simulation: Simulation | None = None, count: bool = True) -> SimulatedCoupling:
        control = run.simulated_field("control", self.ema_simulation, count)
        return SimulatedCoupling(
            run.problem.data, Dynamics(run.problem.reference, control), simulation or self.simulation
        )

    def _buffer(self, run: Run, coupling: AbstractCoupling, name: str,
                annotate: Callable[[Pair], Batch] | None = None) -> AbstractSource:  # fmt: skip
        stream = run.stream.child(name)
        return BufferSource(coupling, self.new_pairs, self.buffer_size, stream, run.workers, annotate=annotate)

    def _backward_source(self, run: Run) -> AbstractSource:
        stream = run.stream.child("backward")
        if self.has_control:
            correct = (lambda pair: self._corrected(run, pair)) if self.affine_correction else None
            return BufferSource(
                self._simulated(run), self.backward_pairs, self.backward_pairs, stream, run.workers, self.reuse,
                correct=correct,
            )  # fmt: skip
        independent = IndependentCoupling(run.problem.data, run.problem.prior)
        coupling: AbstractCoupling = independent
        if self.coupling == "minibatch_ot":
            coupling = MinibatchOTCoupling(independent)
        return FreshSource(coupling, max(1, self.backward_pairs // run.batch_size), stream, run.workers)

    def _corrected(self, run: Run, pair: Pair) -> Pair:
        return match_moments(
            pair, run.problem.prior.draw(0, range(len(pair.x1)), run.stream.child("affine correction"))
        )

    def _terminal(self, run: Run, cycle: int) -> Findings:
        rows, stream = range(self.terminal_samples), run.stream.child("terminal test", cycle)
        x1 = self._simulated(run, count=False).draw(0, rows, stream).x1
        test = terminal_test(x1, run.problem.prior.draw(0, rows, stream.child("prior")))
        metrics = {
            "terminal_top_eigenvalue": test.top_eigenvalue,
            "terminal_top_eigenvalue_prior": test.top_eigenvalue_prior,
            "terminal_norm_mean_error": test.norm_mean_error,
            "terminal_norm_variance_error": test.norm_variance_error,
            "terminal_covariance_error": test.covariance_error,
            "terminal_passed": float(test.passed),
        }
        return Findings(metrics, {f"cycle_{cycle}": test.spectrum, "prior": test.spectrum_prior}, len(rows))


def _damped(regression: Regression, previous: Field, damping: float) -> Regression:
    target = (1 - damping) * previous(regression.t, regression.x) + damping * regression.target
    return Regression(regression.t, regression.x, target, regression.weight)


def _copy(run: Run) -> None:
    run.networks["previous_control"].average.load_state_dict(run.networks["control"].average.state_dict())


def _at_any_time(function: Callable[[State], State]) -> Field:
    def field_(t: Time, x: State) -> State:
        return function(x)

    return field_
