"""Toys on the plane, judged by exact W2 and by the modes that they cover."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from sbbridge.data import GaussianMixture, Toy2D
from sbbridge.metrics import VarietyJudge, checkerboard_square, component, wasserstein2
from sbbridge.problems import BridgeProblem
from sbbridge.sampling import Samples
from sbbridge.study.tasks.base import SHOWN, Row, Task


class PlaneTask(Task):
    """Toys on the plane, judged by exact W2 at n = 1,024."""

    N = 1024
    EXAMPLES = 256
    FLOOR_DRAWS = 8

    def __init__(self, problem: BridgeProblem) -> None:
        self.problem = problem
        self._real = {split: problem.data.sample(self.N, seed=7 + i) for i, split in enumerate(("validation", "test"))}
        self._variety = VarietyJudge(self._real["test"])
        if isinstance(problem.data, GaussianMixture):
            classes = len(problem.data.means)
            self._variety = VarietyJudge(self._real["test"], partial(component, problem.data), classes)
        elif problem.data == Toy2D("checkerboard"):
            self._variety = VarietyJudge(self._real["test"], checkerboard_square, 9)

    def sizes(self, evaluation: Any) -> dict[str, int]:
        return dict.fromkeys(self._real, self.N)

    def judge(self, samples: Samples, split: str) -> Row:
        return {"metric": "wasserstein2", "value": wasserstein2(samples.x.cpu(), self._real[split]), "n": self.N}

    def variety(self, x: Tensor) -> Iterator[Row]:
        for metric, value in self._variety(x.cpu()).items():
            yield {"metric": metric, "value": value, "n": self.N}

    def floors(self) -> Iterator[Row]:
        """Means over fresh draws: of one alone W2 is off by a fifth."""
        drawn = [self.problem.data.sample(self.N, seed=99 + i) for i in range(self.FLOOR_DRAWS)]
        yield from ({**row, "split": "test"} for row in self.variety(drawn[0]))
        for split in self._real:
            rows = [self.judge(Samples(one, 0), split) for one in drawn]
            yield {**rows[0], "value": statistics.fmean(row["value"] for row in rows), "split": split}

    def examples(self) -> Tensor | None:
        return self._real["test"][: self.EXAMPLES]

    def picture(self, samples: Tensor) -> Tensor:
        return samples[: SHOWN * 8]

    def real(self) -> Tensor:
        return self.problem.data.sample(SHOWN * 8, seed=0)
