"""Score-based diffusion: the memoryless Schrödinger bridge, and the first rival."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from torch import Tensor

from sbbridge.config import require, require_finite
from sbbridge.coupling import Batch, FreshSource, IndependentCoupling
from sbbridge.data import EnergyPrior
from sbbridge.methods import cost
from sbbridge.methods.base import FIRST_TIME, Draw, Method, Run, Solution, Stage
from sbbridge.methods.distillation import Distillation
from sbbridge.methods.prediction import BackwardScore
from sbbridge.methods.warm_start import gaussian_score
from sbbridge.networks import Part
from sbbridge.objectives import Regression, denoising_score_matching
from sbbridge.problems import BridgeProblem
from sbbridge.sde import VESDE
from sbbridge.solvers import MEMORYLESS, Dynamics
from sbbridge.types import Field, Time


@dataclass(frozen=True)
class AbstractScoreMatching(Method):
    """Denoising score matching on the reference (Song et al. 2021); one network, one stage, no simulation.

    With a memoryless reference the Schrödinger bridge's coupling is independent and its control zero, so the score is
    ∇log phihat_t (ASBM, Prop. 3.1).

    Attributes:
        epochs: of `pairs` samples each.
        pairs: data points an epoch.
        warm_start: none; gaussian (the score of Gaussian data with the data's moments is a fixed part).
        distillation: a one-step generator after all, or none; its `time` is 0.5 in the ASBM paper's baseline.
    """

    elastic: ClassVar[str] = "epochs"

    epochs: int = 20
    pairs: int = 32768
    warm_start: Literal["none", "gaussian"] = "none"
    distillation: Distillation | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.epochs >= 1, f"epochs must be >= 1, got {self.epochs}")
        require(self.pairs >= 1, f"pairs must be >= 1, got {self.pairs}")

    def cost(self, batch_size: int) -> int:
        distillation = self.distillation
        last = distillation.cost(batch_size, cost.backward_calls(distillation.generation)) if distillation else 0
        return cost.fresh(self.pairs, self.epochs, batch_size) + last

    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """The score, and what distillation adds.

        Raises:
            ValueError: the reference remembers its start, or the prior is not where noised data end.
        """
        if isinstance(problem.prior, EnergyPrior):
            raise ValueError(f"{self.kind} ends in normal noise, this prior is known by its energy")
        if not problem.reference.is_memoryless(MEMORYLESS):
            raise ValueError(
                f"{self.kind} needs a memoryless reference (e.g. reference.beta_max >= 12), this one retains "
                f"m = {problem.reference.retained_memory:.3g}"
            )
        problem.require_noise(self.kind)
        known = None
        if self.warm_start == "gaussian":
            known = BackwardScore(problem.reference).value(gaussian_score(problem))
        part = Part(known, _input_scale(problem))
        added = self.distillation.parts(part, BackwardScore(problem.reference)) if self.distillation else {}
        return {"backward": part} | added

    def stages(self, run: Run) -> Iterator[Stage]:
        """Score matching, [distillation]."""

        def objective(batch: Batch, draw: Draw) -> Regression:
            return denoising_score_matching(
                run.problem.reference, draw.time(FIRST_TIME), batch["x0"], draw.noise(batch["x0"])
            )

        coupling = IndependentCoupling(run.problem.data, run.problem.prior)
        source = FreshSource(coupling, run.steps(self.pairs), run.stream.child("score matching"), run.workers)
        yield Stage("score matching", "backward", source, objective, self.epochs, sampled=True)
        if self.distillation:
            prediction = BackwardScore(run.problem.reference)
            dynamics = prediction.dynamics(run.simulated_field("backward"))
            yield self.distillation.stage(run, "backward", prediction, dynamics, independent=True)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """The score, as backward score, or the distilled generator."""
        prediction = BackwardScore(problem.reference)
        if self.distillation:
            generator = self.distillation.generator(prediction, networks["generator"])
            return Solution(problem, self.kind, Dynamics(problem.reference, generator=generator))
        return Solution(problem, self.kind, prediction.dynamics(networks["backward"]))


@final
@dataclass(frozen=True)
class ScoreMatchingVP(AbstractScoreMatching):
    """DDPM's parameterisation: the network says −eps at x_t = kappa x0 + sqrt(V) eps (Ho et al. 2020, Eq. 14)."""

    kind: Literal["score_matching_vp"] = field(default="score_matching_vp", kw_only=True, repr=False)


@final
@dataclass(frozen=True)
class ScoreMatchingVE(AbstractScoreMatching):
    """NCSN's parameterisation: score = network / sigma on x_t = x0 + sigma eps, inputs scaled to unit variance.

    Song and Ermon 2020, Eq. 5 and technique 3; the scale of the input is EDM's c_in (Karras et al. 2022, Tab. 1).
    """

    kind: Literal["score_matching_ve"] = field(default="score_matching_ve", kw_only=True, repr=False)

    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """The score.

        Raises:
            ValueError: the reference is not variance-exploding, or remembers its start.
        """
        if not isinstance(problem.reference, VESDE):
            raise ValueError(f"score_matching_ve needs reference.kind ve, got {type(problem.reference).__name__}")
        return super().parts(problem)


def _input_scale(problem: BridgeProblem) -> Callable[[Time], Tensor] | None:
    """1 / sqrt(1 + V(0, t)) where the reference keeps the data's size; one that shrinks them needs no scale."""
    reference = problem.reference
    if not isinstance(reference, VESDE):
        return None
    return lambda t: (1 + reference.variance(0.0, t)).rsqrt()
