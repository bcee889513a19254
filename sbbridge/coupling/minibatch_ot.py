"""Optimal transport inside small blocks."""

from dataclasses import dataclass
from typing import final

import torch

from sbbridge.coupling.blocks import AbstractBlockCoupling
from sbbridge.rng import Stream
from sbbridge.types import Pair


@final
@dataclass(frozen=True)
class MinibatchOTCoupling(AbstractBlockCoupling):
    """Independent draws, re-paired within blocks of 256 to minimise Σ |m x0 − x1|^2 (Tong et al. 2024, Alg. 3).

    The reference's memory m > 0 does not matter: only −2 m x0 · x1 depends on the pairing.
    """

    def repair(self, pair: Pair, step: int, rows: range, stream: Stream) -> Pair:
        from scipy.optimize import linear_sum_assignment  # loads half of scipy

        x0, x1 = pair
        cost = torch.cdist(x0.flatten(1).double(), x1.flatten(1).double()) ** 2
        _, columns = linear_sum_assignment(cost.cpu().numpy())
        return Pair(x0, x1[torch.as_tensor(columns, device=x1.device)])
