"""A problem with its judge."""

import abc
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sbbridge.methods import Solution
from sbbridge.metrics import straightness, trajectory_variance, transport_cost
from sbbridge.path import node_times
from sbbridge.problems import BridgeProblem
from sbbridge.sampling import Samples, sample
from sbbridge.study.reporter import StudyReporter

Row = dict[str, Any]
SHOWN = 64
PRIMARY_METRIC = {
    "digits": ("frechet_distance", "digits-CNN"),
    "cifar10": ("frechet_distance", "inception"),
    "gaussian64": ("covariance_error", None),
    "mixture2": ("cbw_uvp", None),
    "mixture16": ("cbw_uvp", None),
}
"""(metric, features) that a data set is judged by; others by ("wasserstein2", None)."""


def primary_metric(dataset: str) -> tuple[str, str | None]:
    """What a data set is judged by: metric and features."""
    return PRIMARY_METRIC.get(dataset, ("wasserstein2", None))


class Task(abc.ABC):
    """A problem with its judge."""

    problem: BridgeProblem

    @abc.abstractmethod
    def judge(self, samples: Samples, split: str) -> Row:
        """metric, value, n (and features) of samples."""

    @abc.abstractmethod
    def sizes(self, evaluation: Any) -> dict[str, int]:
        """How many samples each split's judgement takes."""

    def floors(self) -> Iterator[Row]:
        """What real samples score."""
        return iter(())

    def extras(self, solution: Solution, evaluation: Any, seed: int) -> Iterator[Row]:
        """Metrics that no sampler enters."""
        return iter(())

    def picture(self, samples: Tensor) -> Tensor:
        """Samples as the report shows them."""
        return samples[:SHOWN]

    def real(self) -> Tensor:
        """Real samples beside them."""
        return self.problem.data.sample(SHOWN, seed=0)

    def evaluate(self, solution: Solution, evaluation: Any, seed: int, reporter: StudyReporter) -> Iterator[Row]:
        """All rows of metrics of a solution; the best samples on validation at each NFE become an artefact."""
        best: dict[int, tuple[float, Tensor]] = {}
        for name, grid, steps in self.combinations(solution, evaluation):
            for nfe, num_steps in steps.items():
                entry: Row = {"stage": "evaluation", "sampler": name, "grid": grid, "weights": "ema"}
                for index, (split, n) in enumerate(self.sizes(evaluation).items()):
                    made = sample(solution, n, num_steps, sampler=name, grid=grid, seed=2 * seed + index)
                    judged = self.judge(made, split)
                    yield {**entry, **judged, "split": split, "num_steps": num_steps, "nfe": made.nfe}
                    if split == "validation" and judged["value"] < best.get(nfe, (float("inf"),))[0]:
                        best[nfe] = (judged["value"], self.picture(made.x).cpu())
        yield from ({"stage": "evaluation", "role": "floor", **row} for row in self.floors())
        yield from ({"stage": "evaluation", **row} for row in self.extras(solution, evaluation, seed))
        yield from self.paths(solution, evaluation, seed)
        shown = {f"nfe_{nfe}": images for nfe, (_, images) in best.items()}
        reporter.arrays("samples", {"real": self.picture(self.real()), **shown})

    def combinations(self, solution: Solution, evaluation: Any) -> Iterator[tuple[str, str, dict[int, int]]]:
        for name in evaluation.samplers:
            try:  # a sampler may need a field that this method lacks
                one, two = (sample(solution, 1, n, sampler=name).nfe for n in (1, 2))
            except ValueError:
                continue
            steps = {nfe: 1 + (nfe - one) // (two - one) for nfe in sorted(evaluation.nfe) if nfe >= one}
            for grid in evaluation.grids:
                yield name, grid, steps

    def paths(self, solution: Solution, evaluation: Any, seed: int) -> Iterator[Row]:
        """Cost, straightness and variance of the paths of the method's ODE, or of its first sampler's."""
        supported = [name for name, _, _ in self.combinations(solution, evaluation)]
        if not supported:
            return
        name = next((s for s in ("heun", "ddim") if s in supported), supported[0])
        times = node_times("trailing_uniform", 50)
        made = sample(solution, evaluation.paths, 50, sampler=name, seed=seed, trajectory=True)
        assert made.trajectory is not None
        entry = {"stage": "evaluation", "sampler": name, "grid": "trailing_uniform", "num_steps": 50, "nfe": made.nfe,
                 "weights": "ema", "n": evaluation.paths}  # fmt: skip
        path = made.trajectory.cpu()
        yield {**entry, "metric": "transport_cost", "value": transport_cost(path[-1], path[0])}
        yield {**entry, "metric": "straightness", "value": straightness(path, times)}
        yield {**entry, "metric": "trajectory_variance", "value": trajectory_variance(path, times)}
