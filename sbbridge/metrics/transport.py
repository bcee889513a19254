"""Optimal transport between samples."""

import math

import torch
from torch import Tensor

from sbbridge.metrics.finite import nan_unless_finite


@nan_unless_finite
def wasserstein2(x: Tensor, y: Tensor) -> float:
    """W2 between two samples of equal size, exact: the root of the cheapest assignment's mean squared distance.

    Two samples of one law are not at distance 0: show the floor, real against real at the same n, beside it.
    """
    from scipy.optimize import linear_sum_assignment  # loads half of scipy

    if len(x) != len(y):
        raise ValueError(f"samples must have equal size, got {len(x)} and {len(y)}")
    cost = torch.cdist(x.flatten(1).double(), y.flatten(1).double()).square().numpy()
    if not torch.isfinite(torch.from_numpy(cost)).all():  # finite numbers whose squares are not
        return math.nan
    rows, columns = linear_sum_assignment(cost)
    return float(cost[rows, columns].mean() ** 0.5)
