"""Gaussian ends, judged by the closed form."""

from collections.abc import Iterator
from typing import Any

import torch

from sbbridge.methods import Solution
from sbbridge.metrics import cross_covariance, relative_error
from sbbridge.problems import GaussianBridge
from sbbridge.rng import Stream
from sbbridge.sampling import Samples
from sbbridge.study.tasks.base import Row, Task


class GaussianTask(Task):
    """Gaussian ends: everything against the closed form."""

    def __init__(self, problem: GaussianBridge) -> None:
        self.problem: GaussianBridge = problem

    def sizes(self, evaluation: Any) -> dict[str, int]:
        return {"validation": evaluation.n, "test": evaluation.n}

    def judge(self, samples: Samples, split: str) -> Row:
        estimate = torch.cov(samples.x.double().mT).reshape(self.problem.cov0.shape).cpu()
        return {"metric": "covariance_error", "value": relative_error(estimate, self.problem.cov0), "n": len(samples.x)}

    def floors(self) -> Iterator[Row]:
        drawn = Samples(self.problem.data.sample(20_000, seed=1), 0)
        for split in ("validation", "test"):
            yield {**self.judge(drawn, split), "split": split}

    def extras(self, solution: Solution, evaluation: Any, seed: int) -> Iterator[Row]:
        exact = self.problem.couple(evaluation.n, seed)
        t = Stream(seed, ("t",)).uniform(0, range(evaluation.n)).clamp(min=1e-3)
        x = self.problem.reference.bridge(t, *exact, torch.randn(exact.x0.shape, generator=Stream(seed).generator()))
        scale = self.problem.reference.variance(0.0, t).sqrt()[:, None]
        pairs = []
        if solution.dynamics.backward_score is not None:
            learned, true = solution.backward_score(t, x).cpu() * scale, self.problem.backward_score(t, x) * scale
            pairs.append(("backward_score_error", learned, true))
        if solution.dynamics.control is not None:
            pair = solution.couple(evaluation.n, seed)
            pairs.append(("control_error", solution.control(t, x), self.problem.control(t, x)))
            pairs.append(("coupling_error", cross_covariance(*pair), self.problem.coupling_covariance))
        for metric, estimate, truth in pairs:
            yield {
                "metric": metric,
                "value": relative_error(estimate.cpu(), truth.cpu()),
                "n": evaluation.n,
                "split": "test",
            }
