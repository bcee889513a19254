"""Whole simulated paths as a source of batches, for methods that learn from single steps."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from sbbridge.coupling.buffer import AbstractSource, Batch
from sbbridge.coupling.workers import Workers
from sbbridge.rng import Stream


@final
class TrajectorySource(AbstractSource):
    """A cache of trajectories; an epoch is a number of batches of single steps drawn from it.

    Args:
        simulate: (step, rows, stream) -> states `[num_steps + 1, len(rows), *shape]`.
        paths: in the cache.
        steps_per_epoch: batches an epoch.
        refresh_every: epochs between two caches.

    A batch holds `path` `[batch, num_steps + 1, *shape]`: the objective chooses the step.
    """

    def __init__(self, simulate: Callable[[int, range, Stream], Tensor], paths: int, steps_per_epoch: int,
                 stream: Stream, workers: Workers, refresh_every: int = 1) -> None:  # fmt: skip
        self._simulate, self._paths, self._steps = simulate, paths, steps_per_epoch
        self._stream, self._workers, self._every = stream, workers, refresh_every
        self._held: Batch = {}

    def refresh(self, epoch: int) -> None:
        if epoch % self._every == 0:
            share = self._simulate(epoch, self._workers.shard(self._paths), self._stream).transpose(0, 1)
            self._held = {"path": self._workers.gather(share.contiguous(), self._paths)}

    def steps(self, batch_size: int) -> int:
        return self._steps

    def batch(self, epoch: int, step: int, batch_size: int) -> tuple[Batch, range, int]:
        rows = self._workers.shard(batch_size)
        chosen = self._stream.child("order").integers(epoch * self._steps + step, rows, self._paths)
        return {"path": self._held["path"][chosen.to(self._held["path"].device)]}, rows, batch_size

    def state(self) -> Batch:
        return dict(self._held)

    def load_state(self, state: object) -> None:
        assert isinstance(state, dict)
        self._held = dict(state)


def step_pair(path: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """States at `index` and `index + 1` of every path: two tensors `[batch, *shape]`."""
    row = torch.arange(len(path), device=path.device)
    return path[row, index], path[row, index + 1]
