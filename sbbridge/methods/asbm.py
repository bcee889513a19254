"""Adjoint Schrödinger Bridge Matching (Shin et al. 2026, arXiv 2602.15396)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch

from sbbridge.config import ConfigurationError, require, require_finite
from sbbridge.coupling import ODE_SCHEMES, Generation, Simulation
from sbbridge.data import EnergyPrior
from sbbridge.methods import asbm_stages, cost
from sbbridge.methods.base import Method, Run, Solution, Stage
from sbbridge.methods.distillation import Distillation
from sbbridge.methods.prediction import AbstractPrediction, BackwardScore, Velocity
from sbbridge.methods.warm_start import gaussian_approximation, gaussian_velocity
from sbbridge.networks import Network, Part
from sbbridge.problems import BridgeProblem
from sbbridge.solvers import Dynamics
from sbbridge.types import Field, State, Time


@final
@dataclass(frozen=True)
class ASBM(Method):
    """Stage 1 finds the coupling, stage 2 learns to run it backward.

    Stage 1 alternates corrector matching (h -> ∇log phihat_1, on pairs of the current forward process) and adjoint
    matching (u -> ∇log phi_t, with the terminal adjoint a_1 = ∇E + h); a cycle is one Sinkhorn iteration. Stage 2
    trains a fresh network by backward bridge matching on freshly simulated pairs.

    Attributes:
        coupling: asbm (the cycles), bridge_matching (control fitted to independent pairs, no cycles), minibatch_ot,
            minibatch_sinkhorn, independent (none of these simulates); all feed the same stage 2.
        warm_start: none; bridge_matching (the control starts from it: the paper's BM pretraining); gaussian (the
            closed-form bridge between Gaussians of the ends' moments is a fixed part of every network, which learns
            the rest).
        cycles: alternations of corrector and adjoint matching, at most; inactive unless coupling is asbm.
        stop: never; paper (stage 1 ends with the first cycle after `least_cycles` that passes the paper's terminal
            test); strict (that passes it, sliced W2 and a two-sample classifier).
        least_cycles: before stage 1 may stop.
        must_pass: a run whose last cycle does not pass the test that `stop` names fails before stage 2; else stage 2
            learns what stage 1 has reached, and the test's rows say so. Inactive unless coupling is asbm.
        corrector_epochs, adjoint_epochs: epochs of either in a cycle.
        new_pairs: simulated before every epoch of stage 1.
        buffer_size: pairs that the FIFO buffer of stage 1 keeps.
        damping: the adjoint's target is (1 − damping) u_old + damping (−a_t); 1 is undamped.
        simulation: integrator, steps and grid of the forward paths in stage 1 and 2.
        corrector_simulation: of the paths that the corrector is fitted to, where they differ (99 steps in the paper).
        ema_simulation: simulate with averaged weights.
        affine_correction: move simulated x1 affinely to the prior's mean and covariance before stage 2 uses them.
        student: of stage 2: bridge (a backward score), flow (a velocity along straight lines: the released code's
            --flow-matching).
        backward_epochs: epochs of stage 2.
        backward_pairs: pairs of an epoch of stage 2.
        reuse: epochs of stage 2 that use the same simulated pairs.
        backward_learning_rate: of stage 2, where it differs.
        reflow, reflow_epochs, generation: straightening of a flow student, as in rectified_flow.
        distillation: a one-step generator after all, or none.
        forward_network: of control and corrector, where it differs from the backward network (the paper's is smaller).
        terminal_samples: data points pushed forward for the terminal test after every cycle.
    """

    elastic: ClassVar[str] = "backward_epochs"

    coupling: Literal["asbm", "bridge_matching", "minibatch_ot", "minibatch_sinkhorn", "independent"] = "asbm"
    warm_start: Literal["none", "bridge_matching", "gaussian"] = "none"
    cycles: int = 8
    stop: Literal["never", "paper", "strict"] = "never"
    least_cycles: int = 1
    must_pass: bool = False
    corrector_epochs: int = 4
    adjoint_epochs: int = 6
    new_pairs: int = 8192
    buffer_size: int = 32768
    damping: float = 1.0
    simulation: Simulation = Simulation()
    corrector_simulation: Simulation | None = None
    ema_simulation: bool = True
    affine_correction: bool = False
    student: Literal["bridge", "flow"] = "bridge"
    backward_epochs: int = 24
    backward_pairs: int = 32768
    reuse: int = 4
    backward_learning_rate: float | None = None
    reflow: int = 0
    reflow_epochs: int = 8
    generation: Generation = Generation("heun", 16, "trailing_uniform")
    distillation: Distillation | None = None
    forward_network: Network | None = None
    terminal_samples: int = 8192
    kind: Literal["asbm"] = field(default="asbm", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("cycles", "least_cycles", "corrector_epochs", "adjoint_epochs", "new_pairs", "buffer_size",
                     "backward_epochs", "backward_pairs", "reuse", "reflow_epochs"):  # fmt: skip
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        rate = self.backward_learning_rate
        require(rate is None or rate > 0, f"backward_learning_rate must be > 0, got {rate}")
        require(0 < self.damping <= 1, f"damping must be in (0, 1], got {self.damping}")
        require(self.terminal_samples >= 2, f"terminal_samples must be >= 2, got {self.terminal_samples}")
        require(not self.must_pass or self.stop != "never", "must_pass needs a test: stop paper or strict, got never")
        scheme = self.generation.scheme
        require(scheme in ODE_SCHEMES, f"generation.scheme must be one of {', '.join(ODE_SCHEMES)}, got {scheme}")
        require(
            self.reflow == 0 or (self.reflow > 0 and self.student == "flow"),
            f"reflow must be 0, or more with student flow; got {self.reflow} with student {self.student}",
        )

    @property
    def has_control(self) -> bool:
        """Whether a forward process is learned."""
        return self.coupling in ("asbm", "bridge_matching")

    def cost(self, batch_size: int) -> int:
        calls, total = cost.forward_calls(self.simulation), 0
        if self.has_control and "bridge_matching" in (self.coupling, self.warm_start):
            epochs = self.cycles * (self.corrector_epochs + self.adjoint_epochs)
            total += cost.fresh(self.new_pairs, epochs, batch_size)
        if self.coupling == "asbm":
            total += self._cycles_cost(batch_size)
        if self.has_control:
            total += cost.buffer(self.backward_pairs, self.backward_pairs, self.backward_epochs, batch_size,
                                 calls=calls, every=self.reuse)  # fmt: skip
        else:
            total += cost.fresh(self.backward_pairs, self.backward_epochs, batch_size)
        total += self.reflow * cost.buffer(
            self.backward_pairs, self.backward_pairs, self.reflow_epochs, batch_size,
            calls=cost.backward_calls(self.generation, velocity=True), every=self.reuse,
        )  # fmt: skip
        if self.distillation:
            networks = 2 if self.has_control and self.student == "bridge" else 1
            calls = cost.backward_calls(self.distillation.generation, networks, velocity=self.student == "flow")
            total += self.distillation.cost(batch_size, calls)
        return total

    def _cycles_cost(self, batch_size: int) -> int:
        """Of stage 1: a corrector and an adjoint fit a cycle, the first corrector's pairs for nothing."""
        forward = cost.forward_calls(self.simulation)
        corrector = cost.forward_calls(self.corrector_simulation) if self.corrector_simulation else forward

        def fit(epochs: int, calls: int) -> int:
            return cost.buffer(self.new_pairs, self.buffer_size, epochs, batch_size, calls=calls)

        first = fit(self.corrector_epochs, 0 if self.warm_start == "none" else corrector)
        correctors = first + (self.cycles - 1) * fit(self.corrector_epochs, corrector)
        damped = fit(self.adjoint_epochs, 0) if self.damping < 1 else 0
        return correctors + self.cycles * (fit(self.adjoint_epochs, forward + 1) + damped)

    @property
    def sampled(self) -> str:
        """The network of stage 2."""
        return "velocity" if self.student == "flow" else "backward"

    def network_for(self, name: str, network: Network) -> Network:
        """Control and corrector may be smaller than the network of stage 2."""
        forward = name in ("control", "corrector", "previous_control")
        return (self.forward_network or network) if forward else network

    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """Networks: control and corrector as the coupling needs them, and those of stage 2.

        Raises:
            ValueError: the student of independent pairs is to be distilled, but has no probability flow; or must_pass
                where there is nothing to test against.
        """
        if self.must_pass and isinstance(problem.prior, EnergyPrior) and problem.prior.sampler is None:
            raise ConfigurationError("must_pass: a prior known by its energy alone has no samples to test against")
        gaussian = gaussian_approximation(problem) if self.warm_start == "gaussian" else None
        parts: dict[str, Part] = {}
        if self.has_control:
            parts["control"] = Part(gaussian.control if gaussian else None)
        if self.coupling == "asbm":
            # with no corrector learned yet, h = score of the prior: the memoryless answer, for which a_1 = 0; an
            # energy's gradient is too wild to be a part of a network
            tame = None if isinstance(problem.prior, EnergyPrior) else _at_any_time(problem.prior.score)
            parts["corrector"] = Part(_at_any_time(gaussian.corrector) if gaussian else tame)
            if self.damping < 1:
                parts["previous_control"] = parts["control"]
        last = Part()
        if gaussian and self.student == "flow":
            last = Part(gaussian_velocity(problem, self._gaussian_pairs))
        elif gaussian:
            last = Part(BackwardScore(problem.reference).value(gaussian.backward_score))
        copies = {"previous": last} if self.reflow else {}
        distillation, prediction = self.distillation, self._prediction(problem)
        added = distillation.parts(last, prediction, self.has_control) if distillation else {}
        return parts | {self.sampled: last} | copies | added

    def stages(self, run: Run) -> Iterator[Stage]:
        """[bridge matching] [corrector, adjoint] x cycles, backward or flow, [reflow] [distillation]."""
        if self.has_control and "bridge_matching" in (self.coupling, self.warm_start):
            yield asbm_stages.forward_bridge(self, run)
        if self.coupling == "asbm":
            for cycle in range(1, self.cycles + 1):
                yield asbm_stages.corrector(self, run, cycle)
                yield asbm_stages.adjoint(self, run, cycle)
                if cycle >= self.least_cycles and asbm_stages.passed(self, run, cycle):
                    break
            else:
                asbm_stages.require_passed(self, run)
        yield from asbm_stages.student(self, run)
        if self.distillation:
            control = run.simulated_field("control") if self.has_control else None
            prediction = self._prediction(run.problem)
            dynamics = prediction.dynamics(run.simulated_field(self.sampled), control)
            independent = self.coupling == "independent"
            yield self.distillation.stage(run, self.sampled, prediction, dynamics, independent)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """Control (if there is one), corrector (if there is one) and what stage 2 has learned."""
        corrector, control = networks.get("corrector"), networks.get("control")
        prediction = self._prediction(problem)
        if self.distillation:
            generator = self.distillation.generator(prediction, networks["generator"])
            dynamics = Dynamics(problem.reference, control, generator=generator)
        else:
            dynamics = prediction.dynamics(networks[self.sampled], control)
        field_ = (lambda x: corrector(torch.ones(()), x)) if corrector else None
        return Solution(problem, self.kind, dynamics, field_, self.simulation)

    def _prediction(self, problem: BridgeProblem) -> AbstractPrediction:
        return (Velocity if self.student == "flow" else BackwardScore)(problem.reference)

    @property
    def _gaussian_pairs(self) -> Literal["independent", "optimal", "bridge"]:
        if self.coupling == "independent":
            return "independent"
        return "optimal" if self.coupling == "minibatch_ot" else "bridge"


def _at_any_time(function: Callable[[State], State]) -> Field:
    def field_(t: Time, x: State) -> State:
        return function(x)

    return field_
