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


def rounding(matrix: Any) -> float:
    """How exact a matrix of this type can be: float32's unit for float32, float64's for lists and numbers."""
    kind = matrix.dtype if isinstance(matrix, Tensor) else getattr(torch, str(getattr(matrix, "dtype", "")), None)
    if isinstance(kind, torch.dtype) and kind.is_floating_point:
        return torch.finfo(kind).eps
    return torch.finfo(torch.float64).eps


def covariance_slack(matrix: Any) -> float:
    """What rounding explains of a covariance's asymmetry and of a negative eigenvalue: it scales with the matrix."""
    found = torch.as_tensor(matrix, dtype=torch.float64)
    return float(found.abs().max()) * max(1e-9, 4 * found.numel() ** 0.5 * rounding(matrix))


def require_covariance(matrix: Any, name: str = "covariance") -> Tensor:
    """A matrix as float64 `[d, d]`, made symmetric; rounding in its own type may break symmetry and positivity.

    Negative eigenvalues of the size of rounding, 4 d times the type's unit of the largest entry's, stay: square roots
    cut them (`symmetric_sqrt`).

    Raises:
        ValueError: it is not square, not finite, not symmetric or has a negative eigenvalue.
    """
    found = torch.as_tensor(matrix, dtype=torch.float64)
    found = found.reshape(1, 1) if found.numel() == 1 else found
    if found.dim() != 2 or len(found) != found.shape[1]:
        raise ValueError(f"{name} must be [d, d], got {list(found.shape)}")
    if not torch.isfinite(found).all():
        raise ValueError(f"{name} must be finite")
    slack = covariance_slack(matrix)
    if not torch.allclose(found, found.mT, atol=max(slack, 1e-300)):
        raise ValueError(f"{name} must be symmetric")
    found = (found + found.mT) / 2
    smallest = float(torch.linalg.eigvalsh(found)[0])
    if smallest < -slack:
        raise ValueError(f"{name} must be positive semi-definite, its smallest eigenvalue is {smallest:.3g}")
    return found


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
        if not torch.isfinite(self.mean).all():
            raise ValueError("mean must be finite")
        covariance = as_real(covariance, "covariance")
        self.covariance = require_covariance(covariance)
        if self.mean.dim() != 1 or len(self.covariance) != d:
            raise ValueError(f"mean must be [d] and covariance [d, d], got {list(self.mean.shape)} and "
                             f"{list(self.covariance.shape)}")  # fmt: skip
        least = d * rounding(covariance) * float(self.covariance.abs().max())  # less is no spread, it is rounding
        self._singular = bool(torch.linalg.eigvalsh(self.covariance)[0] <= least)
        self._sqrt = symmetric_sqrt(self.covariance)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mean.shape)

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        z = stream.normal(step, rows, self.shape)
        return self.mean.to(z) + z @ self._sqrt.to(z)

    def score(self, x: State) -> State:
        """−covariance⁻¹ (x − mean).

        Raises:
            ValueError: the covariance is singular, up to rounding.
        """
        if self._singular:
            raise ValueError("a Gaussian with a singular covariance has no score")
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
