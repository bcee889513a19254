"""A mixture whose plan is known, judged conditionally."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sbbridge.methods import Solution
from sbbridge.metrics import (
    VarietyJudge,
    bures_wasserstein_uvp,
    component,
    conditional_bures_wasserstein_uvp,
)
from sbbridge.problems import BridgeProblem, MixtureBridge
from sbbridge.sampling import Samples, sample
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.tasks.base import SHOWN, Row, Task, eta_of


class MixtureTask(Task):
    """A mixture with a known plan: cBW-UVP of x0 given x1.

    A flow's x0 given x1 is a point: its cBW-UVP says how far that is from the plan's conditional law. BW-UVP, of x0
    alone, is fair to methods that do not look for this plan.

    Args:
        truth: the pair with its plan.
        problem: what is trained on: the same pair, or the same data with the prior of a memoryless reference.
    """

    N: ClassVar[int] = 1024
    MARGINAL: ClassVar[int] = 8192
    CONDITIONS: ClassVar[dict[str, int]] = {"validation": 100, "test": 200}

    def __init__(self, truth: MixtureBridge, problem: BridgeProblem) -> None:
        self.problem, self._truth = problem, truth
        end = truth.data.sample(50_000, seed=5).double()
        self._mean, self._end = end.mean(0), torch.cov(end.mT)
        self._x1 = {split: truth.prior.sample(n, seed=11 + n) for split, n in self.CONDITIONS.items()}
        real, potential = truth.data.sample(self.N, seed=7), truth.potential
        self._variety = VarietyJudge(real, partial(component, potential), len(potential.means))

    def variety(self, x: Tensor) -> Iterator[Row]:
        for metric, value in self._variety(x[: self.N].cpu()).items():
            yield {"metric": metric, "value": value, "n": self.N, "split": "test"}
        drawn = x.double().cpu()
        value = bures_wasserstein_uvp(drawn.mean(0), torch.cov(drawn.mT), self._mean, self._end)
        yield {"metric": "bw_uvp", "value": value, "n": len(x), "split": "test"}

    def sizes(self, evaluation: Any) -> dict[str, int]:
        return {split: n * max(2, evaluation.n // n) for split, n in self.CONDITIONS.items()}

    def judge(self, samples: Samples, split: str) -> Row:
        raise RuntimeError("a mixture is judged conditionally")

    def conditional(self, drawn: Tensor, split: str) -> float:
        """cBW-UVP of draws `[conditions, n, d]`."""
        moments = self._truth.conditional_moments(self._x1[split])
        return conditional_bures_wasserstein_uvp(drawn, moments.mean, moments.covariance, self._end)

    def evaluate(self, solution: Solution, evaluation: Any, seed: int, reporter: StudyReporter) -> Iterator[Row]:
        """Draws from each condition; floor: the exact plan's draws; null: draws of the independent plan."""
        shown: dict[str, Tensor] = {}
        for name, grid, steps in self.combinations(solution, evaluation):
            for nfe, num_steps in steps.items():
                for index, (split, n) in enumerate(self.sizes(evaluation).items()):
                    for row in self._scored(solution, name, grid, num_steps, split, n, 2 * seed + index,
                                            eta_of(name, evaluation)):  # fmt: skip
                        yield {"stage": "evaluation", **row}
                made = sample(solution, self.MARGINAL, num_steps, sampler=name, grid=grid, seed=seed,
                              eta=eta_of(name, evaluation))  # fmt: skip
                if self.finite(made.x).all():
                    shown.setdefault(f"nfe_{nfe}", made.x[: SHOWN * 8].cpu())
                for row in self.variety(made.x):
                    yield {"stage": "evaluation", "sampler": name, "grid": grid, "weights": "ema",
                           "num_steps": num_steps, "nfe": made.nfe, **row}  # fmt: skip
        for split, n in self.sizes(evaluation).items():
            x1 = self._repeated(split, n)
            oracle, null = self._truth.sample_conditional(x1, seed=3), self._truth.data.sample(n, seed=4)
            for role, drawn in (("floor", oracle), ("null", null)):
                value = self.conditional(drawn.view(len(self._x1[split]), -1, x1.shape[1]), split)
                yield {"stage": "evaluation", "role": role, "metric": "cbw_uvp", "value": value, "n": n, "split": split}
        for row in self.variety(self.problem.data.sample(self.MARGINAL, seed=99)):
            yield {"stage": "evaluation", "role": "floor", **row}
        yield from self.paths(solution, evaluation, seed, reporter)
        reporter.arrays("samples", {"real": self.problem.data.sample(SHOWN * 8, seed=0), **shown})

    @property
    def _prior_scale(self) -> float:
        return getattr(self.problem.prior, "scale", 1.0)

    def glance(self, solution: Solution, evaluation: Any, seed: int) -> Iterator[Row]:
        n = self.sizes(evaluation)["validation"]
        for name, grid, steps in self.combinations(solution, replace(evaluation, nfe=(evaluation.curve_nfe,))):
            for num_steps in steps.values():
                yield next(self._scored(solution, name, grid, num_steps, "validation", n, 2 * seed,
                                        eta_of(name, evaluation)))  # fmt: skip
                return

    def _scored(self, solution: Solution, name: str, grid: str, num_steps: int, split: str, n: int,
                seed: int, eta: float) -> Iterator[Row]:  # fmt: skip
        """The score, and the share that is not finite."""
        x1 = self._repeated(split, n) * self._prior_scale
        made = sample(solution, None, num_steps, sampler=name, grid=grid, x1=x1, seed=seed, eta=eta)
        value = self.conditional(made.x.cpu().view(len(self._x1[split]), -1, x1.shape[1]), split)
        entry = {"sampler": name, "grid": grid, "weights": "ema", "split": split, "num_steps": num_steps,
                 "nfe": made.nfe}  # fmt: skip
        yield {**entry, "metric": "cbw_uvp", "value": value, "n": n}
        yield from ({**entry, **row} for row in self.not_finite(made.x))

    def _repeated(self, split: str, n: int) -> Tensor:
        x1 = self._x1[split]
        return x1.repeat_interleave(n // len(x1), dim=0)
