"""Toys on the plane, judged by exact W2."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from sbbridge.metrics import wasserstein2
from sbbridge.problems import BridgeProblem
from sbbridge.sampling import Samples
from sbbridge.study.tasks.base import SHOWN, Row, Task


class PlaneTask(Task):
    """Toys on the plane, judged by exact W2 at n = 1,024."""

    N = 1024

    def __init__(self, problem: BridgeProblem) -> None:
        self.problem = problem
        self._real = {split: problem.data.sample(self.N, seed=7 + i) for i, split in enumerate(("validation", "test"))}

    def sizes(self, evaluation: Any) -> dict[str, int]:
        return dict.fromkeys(self._real, self.N)

    def judge(self, samples: Samples, split: str) -> Row:
        return {"metric": "wasserstein2", "value": wasserstein2(samples.x.cpu(), self._real[split]), "n": self.N}

    def floors(self) -> Iterator[Row]:
        for split in self._real:
            yield {**self.judge(Samples(self.problem.data.sample(self.N, seed=99), 0), split), "split": split}

    def picture(self, samples: Tensor) -> Tensor:
        return samples[: SHOWN * 8]

    def real(self) -> Tensor:
        return self.problem.data.sample(SHOWN * 8, seed=0)
