"""A mixture whose plan is known, judged conditionally."""

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from sbbridge.methods import Solution
from sbbridge.metrics import VarietyJudge, component, conditional_bures_wasserstein_uvp
from sbbridge.problems import MixtureBridge
from sbbridge.sampling import Samples, sample
from sbbridge.study.reporter import StudyReporter
from sbbridge.study.tasks.base import SHOWN, Row, Task


class MixtureTask(Task):
    """A mixture with a known plan: cBW-UVP of x0 given x1."""

    N: ClassVar[int] = 1024
    CONDITIONS: ClassVar[dict[str, int]] = {"validation": 100, "test": 200}

    def __init__(self, problem: MixtureBridge) -> None:
        self.problem: MixtureBridge = problem
        self._end = torch.cov(problem.data.sample(50_000, seed=5).double().mT)
        self._x1 = {split: problem.prior.sample(n, seed=11 + n) for split, n in self.CONDITIONS.items()}
        real, potential = problem.data.sample(self.N, seed=7), problem.potential
        self._variety = VarietyJudge(real, partial(component, potential), len(potential.means))

    def variety(self, x: Tensor) -> Iterator[Row]:
        for metric, value in self._variety(x.cpu()).items():
            yield {"metric": metric, "value": value, "n": self.N, "split": "test"}

    def sizes(self, evaluation: Any) -> dict[str, int]:
        return {split: n * max(2, evaluation.n // n) for split, n in self.CONDITIONS.items()}

    def judge(self, samples: Samples, split: str) -> Row:
        raise RuntimeError("a mixture is judged conditionally")

    def conditional(self, drawn: Tensor, split: str) -> float:
        """cBW-UVP of draws `[conditions, n, d]`."""
        moments = self.problem.conditional_moments(self._x1[split])
        return conditional_bures_wasserstein_uvp(drawn, moments.mean, moments.covariance, self._end)

    def evaluate(self, solution: Solution, evaluation: Any, seed: int, reporter: StudyReporter) -> Iterator[Row]:
        """Draws from each condition; floor: the exact plan's draws; null: draws of the independent plan."""
        shown: dict[str, Tensor] = {}
        for name, grid, steps in self.combinations(solution, evaluation):
            if name in ("heun", "ddim"):
                continue  # an ODE draws one x0 for an x1: it has no conditional law to judge
            for nfe, num_steps in steps.items():
                for index, (split, n) in enumerate(self.sizes(evaluation).items()):
                    x1 = self._repeated(split, n)
                    made = sample(solution, None, num_steps, sampler=name, grid=grid, x1=x1, seed=2 * seed + index)
                    value = self.conditional(made.x.cpu().view(len(self._x1[split]), -1, x1.shape[1]), split)
                    yield {"stage": "evaluation", "sampler": name, "grid": grid, "weights": "ema", "metric": "cbw_uvp",
                           "value": value, "n": n, "split": split, "num_steps": num_steps, "nfe": made.nfe}  # fmt: skip
                made = sample(solution, self.N, num_steps, sampler=name, grid=grid, seed=seed)
                shown.setdefault(f"nfe_{nfe}", made.x[: SHOWN * 8].cpu())
                for row in self.variety(made.x):
                    yield {"stage": "evaluation", "sampler": name, "grid": grid, "weights": "ema",
                           "num_steps": num_steps, "nfe": made.nfe, **row}  # fmt: skip
        for split, n in self.sizes(evaluation).items():
            x1 = self._repeated(split, n)
            oracle, null = self.problem.sample_conditional(x1, seed=3), self.problem.data.sample(n, seed=4)
            for role, drawn in (("floor", oracle), ("null", null)):
                value = self.conditional(drawn.view(len(self._x1[split]), -1, x1.shape[1]), split)
                yield {"stage": "evaluation", "role": role, "metric": "cbw_uvp", "value": value, "n": n, "split": split}
        for row in self.variety(self.problem.data.sample(self.N, seed=99)):
            yield {"stage": "evaluation", "role": "floor", **row}
        yield from self.paths(solution, evaluation, seed, reporter)
        reporter.arrays("samples", {"real": self.problem.data.sample(SHOWN * 8, seed=0), **shown})

    def _repeated(self, split: str, n: int) -> Tensor:
        x1 = self._x1[split]
        return x1.repeat_interleave(n // len(x1), dim=0)
