"""Distances between Gaussians, by eigenvalues."""

import torch
from torch import Tensor

from sbbridge.data.gaussians import covariance_slack
from sbbridge.metrics.finite import nan_unless_finite


@nan_unless_finite
def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """|mean_a − mean_b|^2 + tr(A + B − 2 (A^½ B A^½)^½): the squared Bures–Wasserstein distance of two Gaussians.

    Eigenvalues, not a matrix square root of A B: exact for singular covariances and several times faster
    (Dowson and Landau 1982; Heusel et al. 2017).

    Raises:
        ValueError: a covariance has a negative eigenvalue that rounding in its own type does not explain.
    """
    a, b = covariance_a.double(), covariance_b.double()
    values, vectors = torch.linalg.eigh((a + a.mT) / 2)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    product = torch.linalg.eigvalsh(root @ b @ root)  # has b's signs, where a is not singular
    slack_a, slack_b = covariance_slack(covariance_a), covariance_slack(covariance_b)
    if values[0] < -slack_a or product[0] < -slack_b * float(values[-1]):
        raise ValueError("a covariance must be positive semi-definite, this one has a negative eigenvalue")
    cross = product.clamp(min=0).sqrt().sum()
    difference = (mean_a.double() - mean_b.double()).square().sum()
    return float(difference + a.trace() + b.trace() - 2 * cross)


@nan_unless_finite
def bures_wasserstein_uvp(mean: Tensor, covariance: Tensor, true_mean: Tensor, true_covariance: Tensor) -> float:
    """Unexplained variance in per cent: 100 · Fréchet distance / tr(true covariance) (Korotin et al. 2021)."""
    distance = frechet_distance(mean, covariance, true_mean, true_covariance)
    return 100 * distance / float(true_covariance.trace())


@nan_unless_finite
def conditional_bures_wasserstein_uvp(samples: Tensor, true_means: Tensor, true_covariances: Tensor,
                                      end_covariance: Tensor) -> float:  # fmt: skip
    """cBW-UVP in per cent: the mean over conditions of 100 · Fréchet distance / tr(end covariance).

    Args:
        samples: `[conditions, n, d]`, n draws for each condition.
        true_means: `[conditions, d]`; true_covariances: `[conditions, d, d]`.
        end_covariance: `[d, d]`, of the marginal that the samples come from.

    Reference: Gushchin et al. 2023, arXiv 2306.10161, Sec. 5.
    """
    total = 0.0
    for drawn, mean, covariance in zip(samples.double(), true_means, true_covariances, strict=True):
        estimate = torch.cov(drawn.mT).reshape(covariance.shape)
        total += frechet_distance(drawn.mean(0), estimate, mean, covariance)
    return 100 * total / len(samples) / float(end_covariance.trace())


@nan_unless_finite
def relative_error(estimate: Tensor, truth: Tensor) -> float:
    """|estimate − truth| / |truth|, Frobenius."""
    return float((estimate.double() - truth.double()).norm() / truth.double().norm())


def cross_covariance(x0: Tensor, x1: Tensor) -> Tensor:
    """Cov(x0, x1) of paired rows, `[d, d]`."""
    a, b = x0.flatten(1).double(), x1.flatten(1).double()
    return (a - a.mean(0)).mT @ (b - b.mean(0)) / (len(a) - 1)


def cross_covariance_noise(covariance0: Tensor, covariance1: Tensor, cross: Tensor, n: int) -> float:
    """Relative sampling noise of an estimated cross covariance: sqrt((tr S0 tr S1 + |C|^2) / n) / |C|."""
    c = float(cross.square().sum())
    return ((float(covariance0.trace()) * float(covariance1.trace()) + c) / n / c) ** 0.5
