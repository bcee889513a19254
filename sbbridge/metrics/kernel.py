"""Kernel distance: KID by clean-fid's estimator, or made comparable between feature networks; repeatable."""

from typing import NamedTuple

import torch
from torch import Tensor

from sbbridge.metrics.finite import nan_unless_finite
from sbbridge.rng import Stream


class KernelDistance(NamedTuple):
    """The mean over subsets, and its standard error: their scatter over the root of how many fit without overlap."""

    value: float
    standard_error: float


@nan_unless_finite
def kernel_distance(real: Tensor, generated: Tensor, *, standardise: bool = True, subsets: int = 10,
                    subset_size: int = 200, seed: int = 0) -> KernelDistance:  # fmt: skip
    """Squared maximum mean discrepancy with the kernel (x·y / d + 1)^3, unbiased (Bińkowski et al. 2018, Sec. 4.3).

    Unlike a Fréchet distance it is 0 in expectation for equal laws at any n, so it may be negative. clean-fid's own
    function draws its subsets from numpy's global generator; here they are drawn by the seed. The kernels of all rows
    are held at once: 8 (n^2 + m^2 + n m) bytes.

    Args:
        real, generated: features `[n, d]` and `[m, d]`.
        standardise: divide by the real ones' standard deviation, from their mean, for the kernel depends on the scale;
            a feature that is constant on the real set is left as it is.
        subsets: how many; subset_size: rows of each, at most half of the smaller set.
        seed: of the subsets.

    Raises:
        ValueError: fewer than 4 rows on either side.
    """
    smaller = min(len(real), len(generated))
    if smaller < 4:
        raise ValueError(f"a kernel distance needs at least 4 rows on either side, got {smaller}")
    x, y = real.double(), generated.double()
    if standardise:
        mean, scale = x.mean(0), x.std(0, correction=0)
        scale = torch.where(scale > 0, scale, 1.0)
        x, y = (x - mean) / scale, (y - mean) / scale
    size, stream = min(subset_size, smaller // 2), Stream(seed, ("kernel distance",))
    within_x, within_y, between = _kernel(x, x), _kernel(y, y), _kernel(x, y)  # once, for subsets overlap
    values = []
    for index in range(subsets):
        i, j = (stream.child(side).permutation(index, len(z))[:size] for side, z in (("x", x), ("y", y)))
        values.append(_discrepancy(within_x[i][:, i], within_y[j][:, j], between[i][:, j]))
    found = torch.stack(values)
    return KernelDistance(float(found.mean()), float(found.std() / (smaller / size) ** 0.5))


def inception_kernel_distance(real: Tensor, generated: Tensor, *, seed: int = 0) -> KernelDistance:
    """KID of Inception's features as clean-fid has it: as they are, 100 subsets of at most 1,000 (see above)."""
    return kernel_distance(real, generated, standardise=False, subsets=100, subset_size=1000, seed=seed)


def squared_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Σ_{i≠j} (k(x_i, x_j) + k(y_i, y_j)) / (m (m − 1)) − 2 Σ k(x_i, y_j) / m^2, k(x, y) = (x·y / d + 1)^3, `[]`.

    Args:
        x, y: `[m, d]`, m >= 2.
    """
    return _discrepancy(_kernel(x, x), _kernel(y, y), _kernel(x, y))


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.mT / x.shape[1]).add_(1).pow_(3)


def _discrepancy(within_x: Tensor, within_y: Tensor, between: Tensor) -> Tensor:
    m = len(between)
    within = sum((gram.sum() - gram.trace() for gram in (within_x, within_y)), between.new_zeros(()))
    return within / (m * (m - 1)) - 2 * between.sum() / m**2
