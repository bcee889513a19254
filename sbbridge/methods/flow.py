"""Flow matching and its kin: one velocity network along straight lines, on pairs of several couplings."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from sbbridge.config import require, require_finite
from sbbridge.coupling import (
    ODE_SCHEMES,
    AbstractCoupling,
    AbstractSource,
    BufferSource,
    FreshSource,
    GeneratedCoupling,
    Generation,
    IndependentCoupling,
    MinibatchOTCoupling,
)
from sbbridge.methods import cost
from sbbridge.methods.base import Method, Run, Solution, Stage
from sbbridge.methods.distillation import Distillation
from sbbridge.methods.prediction import Velocity
from sbbridge.methods.warm_start import gaussian_velocity
from sbbridge.networks import Part
from sbbridge.problems import BridgeProblem
from sbbridge.solvers import Dynamics
from sbbridge.types import Field


@dataclass(frozen=True)
class AbstractFlow(Method):
    """Fits v(t, x) to x1 − x0 at (1 − t) x0 + t x1; the reference plays no part.

    Attributes:
        epochs: of `pairs` pairs each.
        pairs: of an epoch.
        warm_start: none; gaussian (the closed-form velocity between Gaussians of the ends' moments is a fixed part).
        reflow: times that the flow is straightened: the network goes on with pairs that its own ODE makes.
        reflow_epochs: of each.
        reuse: epochs of a reflow that use the same generated pairs.
        generation: how the ODE is integrated to make them.
        distillation: a one-step generator after all, or none.
    """

    minibatch: ClassVar[bool] = False
    elastic: ClassVar[str] = "epochs"

    epochs: int = 24
    pairs: int = 32768
    warm_start: Literal["none", "gaussian"] = "none"
    reflow: int = 0
    reflow_epochs: int = 8
    reuse: int = 8
    generation: Generation = Generation("heun", 16, "trailing_uniform")
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("epochs", "pairs", "reflow_epochs", "reuse"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")
        require(self.reflow >= 0, f"reflow must be >= 0, got {self.reflow}")
        scheme = self.generation.scheme
        require(scheme in ODE_SCHEMES, f"generation.scheme must be one of {', '.join(ODE_SCHEMES)}, got {scheme}")

    @property
    def sampled(self) -> str:
        """The velocity."""
        return "velocity"

    def cost(self, batch_size: int) -> int:
        calls = cost.backward_calls(self.generation, velocity=True)
        reflow = cost.buffer(self.pairs, self.pairs, self.reflow_epochs, batch_size, calls=calls, every=self.reuse)
        last = 0
        if self.distillation:
            last = self.distillation.cost(batch_size, cost.backward_calls(self.distillation.generation, velocity=True))
        return cost.fresh(self.pairs, self.epochs, batch_size) + self.reflow * reflow + last

    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """The velocity, its frozen copy while it is straightened, and what distillation adds."""
        pairs: Literal["independent", "optimal"] = "optimal" if self.minibatch else "independent"
        part = Part(gaussian_velocity(problem, pairs) if self.warm_start == "gaussian" else None)
        copies = {"previous": part} if self.reflow else {}
        added = self.distillation.parts(part, Velocity(problem.reference)) if self.distillation else {}
        return {"velocity": part} | copies | added

    def stages(self, run: Run) -> Iterator[Stage]:
        """flow matching, [reflow x n], [distillation]."""
        coupling: AbstractCoupling = IndependentCoupling(run.problem.data, run.problem.prior)
        if self.minibatch:
            coupling = MinibatchOTCoupling(IndependentCoupling(run.problem.data, run.problem.prior))
        source = FreshSource(coupling, run.steps(self.pairs), run.stream.child("flow"), run.workers)
        yield from flow_stages(
            run, source, self.epochs, self.reflow, self.reflow_epochs, self.pairs, self.reuse, self.generation
        )
        if self.distillation:
            velocity = Dynamics(run.problem.reference, velocity=run.simulated_field("velocity"))
            independent = not self.minibatch and self.reflow == 0
            prediction = Velocity(run.problem.reference)
            yield self.distillation.stage(run, "velocity", prediction, velocity, independent)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """The velocity, or the distilled generator."""
        prediction = Velocity(problem.reference)
        if self.distillation:
            generator = self.distillation.generator(prediction, networks["generator"])
            return Solution(problem, self.kind, Dynamics(problem.reference, generator=generator))
        return Solution(problem, self.kind, prediction.dynamics(networks["velocity"]))


@final
@dataclass(frozen=True)
class FlowMatching(AbstractFlow):
    """Flow matching on independent pairs (Lipman et al. 2023, arXiv 2210.02747)."""

    kind: Literal["flow_matching"] = field(default="flow_matching", kw_only=True, repr=False)


@final
@dataclass(frozen=True)
class OTCFM(AbstractFlow):
    """Flow matching on pairs of optimal transport inside blocks of 256 (Tong et al. 2024, arXiv 2302.00482)."""

    minibatch: ClassVar[bool] = True

    kind: Literal["ot_cfm"] = field(default="ot_cfm", kw_only=True, repr=False)


@final
@dataclass(frozen=True)
class RectifiedFlow(AbstractFlow):
    """Flow matching, straightened by at least one reflow (Liu et al. 2023, arXiv 2209.03003)."""

    reflow: int = 1
    kind: Literal["rectified_flow"] = field(default="rectified_flow", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.reflow >= 1, f"reflow must be >= 1 for rectified_flow, got {self.reflow}")


def flow_stages(run: Run, source: AbstractSource, epochs: int, reflow: int, reflow_epochs: int, reflow_pairs: int,
                reuse: int, generation: Generation, learning_rate: float | None = None) -> Iterator[Stage]:  # fmt: skip
    """Fits "velocity" to a source's pairs, then to those that a frozen copy of it ("previous") generates."""
    prediction = Velocity(run.problem.reference)
    yield Stage("flow", "velocity", source, prediction.regression, epochs, learning_rate, sampled=True)
    for turn in range(1, reflow + 1):
        frozen = Dynamics(run.problem.reference, velocity=run.simulated_field("previous"))
        coupling = GeneratedCoupling(run.problem.prior, frozen, generation)
        name = f"reflow {turn}"
        pairs = BufferSource(coupling, reflow_pairs, reflow_pairs, run.stream.child(name), run.workers, reuse)
        yield Stage(
            name, "velocity", pairs, prediction.regression, reflow_epochs, learning_rate,
            at_start=lambda: run.copy_weights("velocity", "previous"), sampled=True,
        )  # fmt: skip
