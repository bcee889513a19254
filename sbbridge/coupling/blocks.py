"""Couplings that re-pair independent draws inside small blocks."""

import abc
from dataclasses import dataclass

import torch

from sbbridge.coupling.base import AbstractCoupling
from sbbridge.coupling.independent import IndependentCoupling
from sbbridge.rng import BLOCK, Stream
from sbbridge.types import Pair


@dataclass(frozen=True)
class AbstractBlockCoupling(AbstractCoupling):
    """Re-pairs blocks of 256 rows; they are fixed by row, so that batch size and workers do not change the pairs."""

    independent: IndependentCoupling

    @abc.abstractmethod
    def repair(self, pair: Pair, step: int, rows: range, stream: Stream) -> Pair:
        """A block's rows, paired anew."""

    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        first, last = rows.start // BLOCK, (rows.stop - 1) // BLOCK
        blocks = []
        for block in range(first, last + 1):
            whole = range(block * BLOCK, (block + 1) * BLOCK)
            blocks.append(self.repair(self.independent.draw(step, whole, stream), step, whole, stream))
        start = rows.start - first * BLOCK
        x0, x1 = (torch.cat(end)[start : start + len(rows)] for end in zip(*blocks, strict=True))
        return Pair(x0, x1)
