"""Distances between Gaussians, by eigenvalues."""

import torch
from torch import Tensor

from sbbridge.data.gaussians import symmetric_sqrt


def frechet_distance(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """|mean_a − mean_b|^2 + tr(A + B − 2 (A^½ B A^½)^½): the squared Bures–Wasserstein distance of two Gaussians.

    Eigenvalues, not a matrix square root of A B: exact for singular covariances and several times faster
    (Dowson and Landau 1982; Heusel et al. 2017).
    """
    a, b = covariance_a.double(), covariance_b.double()
    root = symmetric_sqrt(a)
    cross = torch.linalg.eigvalsh(root @ b @ root).clamp(min=0).sqrt().sum()
    difference = (mean_a.double() - mean_b.double()).square().sum()
    return float(difference + a.trace() + b.trace() - 2 * cross)


def bures_wasserstein_uvp(mean: Tensor, covariance: Tensor, true_mean: Tensor, true_covariance: Tensor) -> float:
    """Unexplained variance in per cent: 100 · Fréchet distance / tr(true covariance) (Korotin et al. 2021)."""
    distance = frechet_distance(mean, covariance, true_mean, true_covariance)
    return 100 * distance / float(true_covariance.trace())


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
