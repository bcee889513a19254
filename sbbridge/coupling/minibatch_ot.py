"""Optimal transport inside small blocks."""

from dataclasses import dataclass
from typing import final

import torch
from scipy.optimize import linear_sum_assignment

from sbbridge.coupling.base import AbstractCoupling
from sbbridge.coupling.independent import IndependentCoupling
from sbbridge.rng import BLOCK, Stream
from sbbridge.types import Pair


@final
@dataclass(frozen=True)
class MinibatchOTCoupling(AbstractCoupling):
    """Independent draws, re-paired within blocks of 256 to minimise Σ |m x0 − x1|^2 (Tong et al. 2024, Alg. 3).

    The reference's memory m > 0 does not matter: only −2 m x0 · x1 depends on the pairing. Blocks are fixed by row,
    so that batch size and workers do not change the pairs.
    """

    independent: IndependentCoupling

    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        first, last = rows.start // BLOCK, (rows.stop - 1) // BLOCK
        blocks = [self._block(step, range(b * BLOCK, (b + 1) * BLOCK), stream) for b in range(first, last + 1)]
        start = rows.start - first * BLOCK
        x0, x1 = (torch.cat(end)[start : start + len(rows)] for end in zip(*blocks, strict=True))
        return Pair(x0, x1)

    def _block(self, step: int, rows: range, stream: Stream) -> Pair:
        x0, x1 = self.independent.draw(step, rows, stream)
        cost = torch.cdist(x0.flatten(1).double(), x1.flatten(1).double()) ** 2
        _, columns = linear_sum_assignment(cost.cpu().numpy())
        return Pair(x0, x1[torch.as_tensor(columns, device=x1.device)])
