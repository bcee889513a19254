"""Kernel distance (KID): clean-fid's estimator, made comparable between feature networks, and repeatable."""

from typing import NamedTuple

import torch
from torch import Tensor

from sbbridge.rng import Stream


class KernelDistance(NamedTuple):
    """The mean over subsets, and its standard error: their scatter over the root of how many fit without overlap."""

    value: float
    standard_error: float


def kernel_distance(real: Tensor, generated: Tensor, *, subsets: int = 10, subset_size: int = 200,
                    seed: int = 0) -> KernelDistance:  # fmt: skip
    """Squared maximum mean discrepancy with the kernel (x·y / d + 1)^3, unbiased (Bińkowski et al. 2018, Sec. 4.3).

    Features are standardised by the real ones' mean and standard deviation, for the kernel depends on their scale.
    Unlike a Fréchet distance it is 0 in expectation for equal laws at any n, so it may be negative. clean-fid's own
    function draws its subsets from numpy's global generator; here they are drawn by the seed.

    Args:
        real, generated: features `[n, d]` and `[m, d]`; a feature that is constant on the real set is left as it is.
        subsets: how many; subset_size: rows of each, at most half of the smaller set.

    Raises:
        ValueError: fewer than 4 rows on either side.
    """
    smaller = min(len(real), len(generated))
    if smaller < 4:
        raise ValueError(f"a kernel distance needs at least 4 rows on either side, got {smaller}")
    mean, scale = real.double().mean(0), real.double().std(0, correction=0)
    scale = torch.where(scale > 0, scale, 1.0)
    x, y = ((z.double() - mean) / scale for z in (real, generated))
    size, stream = min(subset_size, smaller // 2), Stream(seed, ("kernel distance",))
    values = torch.stack([
        squared_discrepancy(*(z[stream.child(side).permutation(i, len(z))[:size]] for side, z in (("x", x), ("y", y))))
        for i in range(subsets)
    ])  # fmt: skip
    return KernelDistance(float(values.mean()), float(values.std() / (smaller / size) ** 0.5))


def squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Σ_{i≠j} (k(x_i, x_j) + k(y_i, y_j)) / (m (m − 1)) − 2 Σ k(x_i, y_j) / m^2, k(x, y) = (x·y / d + 1)^3, `[]`.

    Args:
        x, y: `[m, d]`, m >= 2.
    """
    m, d = x.shape
    between = (x @ y.mT / d + 1).pow(3).sum()
    within = sum((gram.sum() - gram.trace() for gram in ((z @ z.mT / d + 1).pow(3) for z in (x, y))), x.new_zeros(()))
    return within / (m * (m - 1)) - 2 * between / m**2
