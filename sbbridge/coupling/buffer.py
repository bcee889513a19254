"""Where training batches come from: drawn afresh at every step, or from a first-in-first-out buffer of pairs."""

import abc
from collections.abc import Callable, Mapping
from typing import TypeAlias, final

import torch
from torch import Tensor

from sbbridge.coupling.base import AbstractCoupling
from sbbridge.coupling.workers import Workers
from sbbridge.rng import Stream
from sbbridge.types import Pair

Batch: TypeAlias = dict[str, Tensor]
"""Rows by name: x0, x1, and what a source adds to them."""


class AbstractSource(abc.ABC):
    """Batches for one stage, epoch by epoch."""

    @abc.abstractmethod
    def refresh(self, epoch: int) -> None:
        """Gets ready for an epoch."""

    @abc.abstractmethod
    def steps(self, batch_size: int) -> int:
        """Steps of the present epoch."""

    @abc.abstractmethod
    def batch(self, epoch: int, step: int, batch_size: int) -> tuple[Batch, range, int]:
        """This worker's rows of a global batch, which of its rows they are, and how many it has."""

    def state(self) -> Mapping[str, Tensor]:
        """What a checkpoint must hold to continue in the middle of an epoch."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts back what `state` gave."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state, got {sorted(state)}")


@final
class FreshSource(AbstractSource):
    """New pairs at every step."""

    def __init__(self, coupling: AbstractCoupling, steps_per_epoch: int, stream: Stream, workers: Workers) -> None:
        self._coupling, self._steps, self._stream, self._workers = coupling, steps_per_epoch, stream, workers

    def refresh(self, epoch: int) -> None:
        pass

    def steps(self, batch_size: int) -> int:
        return self._steps

    def batch(self, epoch: int, step: int, batch_size: int) -> tuple[Batch, range, int]:
        rows = self._workers.shard(batch_size)
        pair = self._coupling.draw(epoch * self._steps + step, rows, self._stream)
        return pair._asdict(), rows, batch_size


@final
class BufferSource(AbstractSource):
    """A FIFO buffer of simulated pairs: every epoch adds new ones and makes one shuffled pass over all.

    Args:
        coupling: where pairs come from; each worker simulates its share, all hold the whole buffer.
        new_pairs: simulated at every refresh.
        capacity: pairs kept; the oldest leave first.
        refresh_every: epochs between refreshes; above 1, simulated pairs are used again.
        annotate: adds tensors that belong to a pair at the time it is made (the terminal adjoint).
        correct: changes all new pairs together, before they are annotated.
    """

    def __init__(self, coupling: AbstractCoupling, new_pairs: int, capacity: int, stream: Stream, workers: Workers,
                 refresh_every: int = 1, annotate: Callable[[Pair], Batch] | None = None,
                 correct: Callable[[Pair], Pair] | None = None) -> None:  # fmt: skip
        self._coupling, self._new, self._capacity = coupling, new_pairs, max(capacity, new_pairs)
        self._stream, self._workers, self._every = stream, workers, refresh_every
        self._annotate, self._correct = annotate, correct
        self._held: Batch = {}
        self._order: tuple[int, Tensor] | None = None

    def refresh(self, epoch: int) -> None:
        if epoch % self._every == 0:
            self._simulate(epoch)

    def steps(self, batch_size: int) -> int:
        return max(1, len(self._held["x0"]) // batch_size)

    def batch(self, epoch: int, step: int, batch_size: int) -> tuple[Batch, range, int]:
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, self._stream.child("order").permutation(epoch, len(self._held["x0"]))
        chosen = self._order[1][step * batch_size : (step + 1) * batch_size]
        rows = self._workers.shard(len(chosen))
        mine = chosen[rows.start : rows.stop].to(self._held["x0"].device)
        return {name: held[mine] for name, held in self._held.items()}, rows, len(chosen)

    def state(self) -> Mapping[str, Tensor]:
        return dict(self._held)

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self._held = dict(state)

    def _simulate(self, epoch: int) -> None:
        share = self._coupling.draw(epoch, self._workers.shard(self._new), self._stream)
        pair = Pair(*(self._workers.gather(end, self._new) for end in share))
        pair = self._correct(pair) if self._correct else pair
        fresh = pair._asdict() | self._annotations(pair)
        old = self._held
        self._held = {
            name: torch.cat([old[name], new])[-self._capacity :] if old else new for name, new in fresh.items()
        }

    def _annotations(self, pair: Pair) -> Batch:
        if self._annotate is None:
            return {}
        rows = self._workers.shard(self._new)
        mine = self._annotate(Pair(*(end[rows.start : rows.stop] for end in pair)))
        return {name: self._workers.gather(share, self._new) for name, share in mine.items()}
