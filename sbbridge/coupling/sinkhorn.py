"""Entropic optimal transport inside small blocks."""

from dataclasses import dataclass
from typing import final

import torch

from sbbridge.coupling.blocks import AbstractBlockCoupling
from sbbridge.rng import BLOCK, Stream
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import Pair

TOLERANCE, MOST_ITERATIONS = 1e-6, 2000
SAFE_EXPONENT = 600.0
"""exp(−this) is still a normal float64: up to it the kernel itself is iterated on, which is many times faster."""


@final
@dataclass(frozen=True)
class MinibatchSinkhornCoupling(AbstractBlockCoupling):
    """Independent draws, re-paired within blocks of 256 by a draw from the static Schrödinger bridge of the block.

    The block's plan is that of the reference's own kernel, exp(−|m x0 − x1|^2 / (2 tau^2)), by Sinkhorn's algorithm
    (POT; in the log domain where the kernel would underflow); each x0 then draws its x1 from its row ([SF]^2M, Tong et
    al. 2024b, Alg. 1 with that kernel).
    A block's plan is biased towards independence where 256 points do not fill the space.
    """

    reference: AbstractLinearSDE

    def repair(self, pair: Pair, step: int, rows: range, stream: Stream) -> Pair:
        import ot  # takes seconds

        x0, x1 = pair
        m, variance = self.reference.retained_memory, self.reference.terminal_variance
        cost = torch.cdist(m * x0.flatten(1).double(), x1.flatten(1).double()) ** 2
        way = "sinkhorn" if float(cost.max()) < SAFE_EXPONENT * 2 * variance else "sinkhorn_log"
        plan = ot.sinkhorn([], [], cost, 2 * variance, way, MOST_ITERATIONS, TOLERANCE, warn=False)
        level = stream.child("row").uniform(step, rows)[:, None].to(plan)
        columns = torch.searchsorted((plan.cumsum(1) / plan.sum(1, keepdim=True)).contiguous(), level).squeeze(1)
        return Pair(x0, x1[columns.clamp(max=BLOCK - 1)])
