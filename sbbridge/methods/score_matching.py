"""Score-based diffusion: the memoryless Schrödinger bridge, and the first rival."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, final

from sbbridge.config import require, require_finite
from sbbridge.coupling import Batch, FreshSource, IndependentCoupling
from sbbridge.methods.backward import backward_score
from sbbridge.methods.base import FIRST_TIME, Draw, Method, Run, Solution, Stage
from sbbridge.objectives import Regression, denoising_score_matching
from sbbridge.problems import BridgeProblem
from sbbridge.solvers import Dynamics
from sbbridge.types import Field


@final
@dataclass(frozen=True)
class ScoreMatchingVP(Method):
    """Denoising score matching on the reference (Song et al. 2021); one network, one stage, no simulation.

    With a memoryless reference the Schrödinger bridge's coupling is independent and its control zero, so the score is
    ∇log phihat_t (ASBM, Prop. 3.1).

    Attributes:
        epochs: of `pairs` samples each.
        pairs: data points an epoch.
    """

    epochs: int = 20
    pairs: int = 32768
    kind: Literal["score_matching_vp"] = field(default="score_matching_vp", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.epochs >= 1, f"epochs must be >= 1, got {self.epochs}")
        require(self.pairs >= 1, f"pairs must be >= 1, got {self.pairs}")

    def known_parts(self, problem: BridgeProblem) -> dict[str, Field | None]:
        """One network.

        Raises:
            ValueError: the reference remembers its start, so the prior is not where noised data end.
        """
        if not problem.reference.is_memoryless(0.05):
            raise ValueError(
                "score_matching_vp needs a memoryless reference (e.g. reference.beta_max >= 12), this one retains "
                f"m = {problem.reference.retained_memory:.3g}"
            )
        return {"backward": None}

    def stages(self, run: Run) -> Iterator[Stage]:
        """One stage."""

        def objective(batch: Batch, draw: Draw) -> Regression:
            return denoising_score_matching(
                run.problem.reference, draw.time(FIRST_TIME), batch["x0"], draw.noise(batch["x0"])
            )

        coupling = IndependentCoupling(run.problem.data, run.problem.prior)
        steps = max(1, self.pairs // run.batch_size)
        source = FreshSource(coupling, steps, run.stream.child("score matching"), run.workers)
        yield Stage("score matching", "backward", source, objective, self.epochs)

    def solution(self, problem: BridgeProblem, networks: Mapping[str, Field]) -> Solution:
        """The score, as backward score."""
        score = backward_score(problem.reference, networks["backward"])
        return Solution(problem, self.kind, Dynamics(problem.reference, None, score))
