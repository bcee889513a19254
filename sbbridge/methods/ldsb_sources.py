"""What LDSB's stages learn from: all nodes' ratios at once, or images and noise for one node after the other."""

from collections.abc import Callable, Mapping
from typing import final

import torch
from torch import Tensor

from sbbridge.coupling import AbstractSource, Batch, Workers
from sbbridge.methods.base import Run
from sbbridge.methods.ldsb_halves import Half, Solved
from sbbridge.problems import unit_noise


@final
class RatioSource(AbstractSource):
    """All nodes, at every step, with the ratios that the networks are to say there.

    Args:
        inputs: what the networks are called with, see `inputs_of`.
        solve: makes the ratios, once.
        tell: takes them as they are, where the networks can; then there is nothing to learn.
        steps: with which networks learn them.
    """

    def __init__(self, inputs: tuple[Tensor, Tensor], solve: Callable[[], Solved], tell: Callable[[Solved], bool],
                 steps: int, workers: Workers, device: str) -> None:  # fmt: skip
        self._inputs, self._solve, self._tell, self._steps = inputs, solve, tell, steps
        self._workers, self._device = workers, device
        self.solved: Solved | None = None

    def refresh(self, epoch: int) -> None:
        self.solved = self._solve()
        if self._tell(self.solved):
            self._steps = 0

    def steps(self, batch_size: int) -> int:
        return self._steps

    def batch(self, epoch: int, step: int, batch_size: int) -> tuple[Batch, range, int]:
        assert self.solved is not None
        inputs, numbers = self._inputs
        n, rank = len(inputs), self._workers.rank
        held = {"image": self.solved.image_ratio, "noise": self.solved.noise_ratio}
        targets = {name: ratio.to(self._device, torch.get_default_dtype()) for name, ratio in held.items()}
        # every worker has all nodes: a shard of few rows might be empty
        return {"t": inputs, "node": numbers, **targets}, range(rank * n, (rank + 1) * n), n * self._workers.size

    def state(self) -> Mapping[str, Tensor]:
        assert self.solved is not None
        return self.solved.arrays() | {"steps": torch.tensor(self._steps)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        held = dict(state)
        self._steps = int(held.pop("steps"))
        self.solved = Solved(**held)


@final
class SweepSource(AbstractSource):
    """Images and noise for one node at a time, from the start of the path to the data, sweep after sweep.

    Args:
        sweeps: of a batch of images, each a list of nodes; the noise of each is its own where `fresh_noise`.
    """

    def __init__(self, run: Run, half: Half, batches: int, sweeps: list[list[int]], fresh_noise: bool) -> None:
        self._run, self._batches, self._fresh = run, batches, fresh_noise
        self._turns = [(number, node) for number, sweep in enumerate(sweeps) for node in sweep]
        self._stream = run.stream.child(half.name)

    def refresh(self, epoch: int) -> None:
        pass

    def steps(self, batch_size: int) -> int:
        return self._batches * len(self._turns)

    def batch(self, epoch: int, step: int, batch_size: int) -> tuple[Batch, range, int]:
        rows, problem = self._run.workers.shard(batch_size), self._run.problem
        group = epoch * self._batches + step // len(self._turns)
        sweep, node = self._turns[step % len(self._turns)]
        x0 = problem.data.draw(group, rows, self._stream.child("images"))
        eps = unit_noise(problem, group, rows, self._stream.child("noise", sweep if self._fresh else 0))
        return {"x0": x0, "eps": eps, "node": torch.full((len(rows),), node)}, rows, batch_size
