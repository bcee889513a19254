"""Gaussians and mixtures of Gaussians."""

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from sbbridge.data.arrays import as_real
from sbbridge.data.base import AbstractDistribution
from sbbridge.rng import Stream
from sbbridge.types import State


def symmetric_sqrt(matrix: Tensor) -> Tensor:
    """The symmetric square root of a positive semi-definite matrix; rounding below zero is cut."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


@final
class StandardNormal(AbstractDistribution):
    """N(0, scale^2 I) on states of any shape; holds no matrices."""

    def __init__(self, shape: Sequence[int], scale: float = 1.0) -> None:
        if scale <= 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self._shape, self.scale = tuple(shape), scale

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        return self.scale * stream.normal(step, rows, self._shape)

    def score(self, x: State) -> State:
        """−x / scale^2."""
        return -x / self.scale**2


@final
class Gaussian(AbstractDistribution):
    """N(mean, covariance) on vectors; the covariance may be singular.

    Raises:
        ValueError: the covariance has the wrong shape, is not symmetric or has a negative eigenvalue.
    """

    def __init__(self, mean: Any, covariance: Any) -> None:
        self.mean = torch.atleast_1d(as_real(mean, "mean").to(torch.float64))
        d = len(self.mean)
        self.covariance = as_real(covariance, "covariance").to(torch.float64).reshape(d, d)
        if not (torch.isfinite(self.mean).all() and torch.isfinite(self.covariance).all()):
            raise ValueError("mean and covariance must be finite")
        scale = float(self.covariance.abs().max())
        if not torch.allclose(self.covariance, self.covariance.mT, atol=1e-9 * max(scale, 1e-300)):
            raise ValueError("covariance must be symmetric")
        smallest = float(torch.linalg.eigvalsh(self.covariance)[0])
        if smallest < -1e-9 * scale:
            raise ValueError(f"covariance must be positive semi-definite, its smallest eigenvalue is {smallest:.3g}")
        self._sqrt = symmetric_sqrt(self.covariance)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        z = stream.normal(step, rows, self.shape)
        return self.mean.to(z) + z @ self._sqrt.to(z)

    def score(self, x: State) -> State:
        """−covariance⁻¹ (x − mean); a singular covariance has none."""
        return -torch.linalg.solve(self.covariance, (x.double() - self.mean.to(x.device)).mT).mT.to(x)


@final
class GaussianMixture(AbstractDistribution):
    """Σ_k w_k N(mean_k, diag(variance_k)) on vectors.

    Args:
        weights: `[k]`, positive; normalised here.
        means: `[k, d]`.
        variances: `[k, d]` (diagonals) or `[k]` (isotropic).
    """

    def __init__(self, weights: Any, means: Any, variances: Any) -> None:
        self.means = as_real(means, "means").to(torch.float64)
        if self.means.dim() != 2:
            raise ValueError(f"means must be [components, dimension], got shape {tuple(self.means.shape)}")
        weights = as_real(weights, "weights").to(torch.float64)
        variances = as_real(variances, "variances").to(torch.float64)
        if not all(bool(torch.isfinite(part).all()) for part in (self.means, weights, variances)):
            raise ValueError("weights, means and variances must be finite")
        variances = variances[:, None] if variances.dim() == 1 else variances
        self.variances = variances.expand_as(self.means).contiguous()
        if weights.shape != self.means.shape[:1] or (weights <= 0).any() or (self.variances <= 0).any():
            raise ValueError("weights and variances must be positive, one a component")
        self.weights = weights / weights.sum()

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.means.shape[1:])

    @property
    def mean(self) -> Tensor:
        """Mean `[d]`."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Covariance `[d, d]`."""
        centred = self.means - self.mean
        return torch.diag(self.weights @ self.variances) + (centred.mT * self.weights) @ centred

    def component(self, step: int, rows: range, stream: Stream) -> Tensor:
        """Which component each row comes from."""
        edges = self.weights.cumsum(0)[:-1].to(stream.device)
        return torch.bucketize(stream.child("component").uniform(step, rows), edges)

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        k = self.component(step, rows, stream)
        z = stream.normal(step, rows, self.shape)
        return self.means.to(z)[k] + self.variances.to(z).sqrt()[k] * z

    def log_prob(self, x: State) -> Tensor:
        """log p(x), `[batch]`."""
        return torch.logsumexp(self.log_components(x), dim=1)

    def score(self, x: State) -> State:
        """∇log p(x): the components' scores, weighted by their responsibilities."""
        responsibility = torch.softmax(self.log_components(x), dim=1)
        scores = (self.means.to(x.device) - x.double()[:, None]) / self.variances.to(x.device)
        return (responsibility[:, :, None] * scores).sum(1).to(x)

    def log_components(self, x: State) -> Tensor:
        """log(w_k N(x; mean_k, variance_k)), `[batch, k]`."""
        means, variances = self.means.to(x.device), self.variances.to(x.device)
        square = ((x.double()[:, None] - means) ** 2 / variances).sum(-1)
        constant = self.weights.to(x.device).log() - 0.5 * (2 * torch.pi * variances).log().sum(-1)
        return constant - 0.5 * square
