"""Closed forms between Gaussians with the ends' moments, for warm starts."""

import math
from collections.abc import Callable
from typing import Literal, final

import torch
from torch import Tensor

from sbbridge.data import AbstractDistribution, Gaussian, StandardNormal, TensorData
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.types import Field, State, Time

MOMENT_SAMPLES = 100_000
SMALLEST_VARIANCE = 1e-8
"""Constant pixels count as varying by this much, so that velocities at t = 0 exist."""


@final
class GaussianApproximation:
    """The closed-form bridge between Gaussians with the ends' means and covariances, on states of any shape."""

    def __init__(self, bridge: GaussianBridge) -> None:
        self.bridge = bridge

    def control(self, t: Time, x: State) -> State:
        """∇log phi_t."""
        return self.bridge.control(t, x.flatten(1)).view_as(x)

    def backward_score(self, t: Time, x: State) -> State:
        """∇log phihat_t."""
        return self.bridge.backward_score(t, x.flatten(1)).view_as(x)

    def corrector(self, x: State) -> State:
        """∇log phihat_1."""
        return self.bridge.corrector(x.flatten(1)).view_as(x)


def gaussian_approximation(problem: BridgeProblem) -> GaussianApproximation:
    """Moments are exact where the end is a Gaussian, those of the data where it is a tensor, of 100,000 draws else."""
    (mean0, cov0), (mean1, cov1) = _moments(problem.data), _moments(problem.prior)
    return GaussianApproximation(GaussianBridge(mean0, cov0, mean1, cov1, problem.reference))


def gaussian_score(problem: BridgeProblem) -> Field:
    """∇log p_t of noised Gaussian data: −(kappa^2 S0 + V I)⁻¹ (x − kappa mean0)."""
    mean, covariance = _moments(problem.data)
    reference = problem.reference

    def slope(t: Tensor, s: Tensor) -> Tensor:
        return -1 / (reference.mean_factor(0.0, t) ** 2 * s + reference.variance(0.0, t))

    return _Diagonal(mean, torch.zeros_like(mean), covariance, slope, lambda t: reference.mean_factor(0.0, t))


def gaussian_velocity(problem: BridgeProblem, coupling: Literal["independent", "optimal", "bridge"]) -> Field:
    """E[x1 − x0 | x_t] along (1 − t) x0 + t x1 between Gaussians, for an isotropic prior N(0, p I).

    Per eigenvalue s of Cov(x0), with c = Cov(x0, x1): (t p − (1 − t) s + (1 − 2t) c) / ((1 − t)^2 s + t^2 p +
    2 t (1 − t) c); c = 0 for independent pairs, sqrt(s p) for optimal transport, the Schrödinger bridge's
    ((4 m^2 s p + tau^4)^½ − tau^2) / (2 m).

    Raises:
        ValueError: the prior's covariance is not a multiple of the identity.
    """
    (mean, covariance), (mean1, covariance1) = _moments(problem.data), _moments(problem.prior)
    p = float(covariance1.diagonal().mean())
    if not torch.allclose(covariance1, p * torch.eye(len(covariance1), dtype=covariance1.dtype), rtol=0.02, atol=1e-6):
        raise ValueError("a flow's gaussian warm start needs a prior that is the same in every direction")
    m, tau2 = problem.reference.retained_memory, problem.reference.terminal_variance

    def slope(t: Tensor, s: Tensor) -> Tensor:
        s = s.clamp(min=SMALLEST_VARIANCE)
        crosses = {
            "independent": torch.zeros_like(s),
            "optimal": (s * p).sqrt(),
            "bridge": ((4 * m * m * s * p + tau2**2).sqrt() - tau2) / (2 * m),
        }
        c = crosses[coupling]
        return (t * p - (1 - t) * s + (1 - 2 * t) * c) / ((1 - t) ** 2 * s + t**2 * p + 2 * t * (1 - t) * c)

    return _Diagonal(mean, mean1 - mean, covariance, slope, lambda t: 1 - t, mean1)


@final
class _Diagonal:
    """offset + U diag(slope(t, s)) U^T (x − a(t) mean − (1 − a(t)) mean1), with Cov(x0) = U diag(s) U^T."""

    def __init__(self, mean: Tensor, offset: Tensor, covariance: Tensor, slope: Callable[[Tensor, Tensor], Tensor],
                 factor: Callable[[Tensor], Tensor], mean1: Tensor | None = None) -> None:  # fmt: skip
        values, self.vectors = torch.linalg.eigh((covariance + covariance.mT) / 2)
        self.values = values.clamp(min=0)
        self.mean, self.offset, self.slope, self.factor = mean, offset, slope, factor
        self.mean1 = torch.zeros_like(mean) if mean1 is None else mean1

    def __call__(self, t: Time, x: State) -> State:
        t = t.to(x.device).reshape(-1, 1).double()
        vectors, values = self.vectors.to(x.device), self.values.to(x.device)
        a = self.factor(t)
        centre = a * self.mean.to(x.device) + ((1 - a) * self.mean1.to(x.device) if self.mean1.any() else 0)
        y = (x.flatten(1).double() - centre) @ vectors
        out = self.offset.to(x.device) + (self.slope(t, values) * y) @ vectors.mT
        return out.to(x).view_as(x)


def _moments(end: AbstractDistribution) -> tuple[Tensor, Tensor]:
    if isinstance(end, Gaussian):
        return end.mean, end.covariance
    if isinstance(end, StandardNormal):
        identity = torch.eye(math.prod(end.shape), dtype=torch.float64)
        return torch.zeros(len(identity), dtype=torch.float64), end.scale**2 * identity
    samples = end.x if isinstance(end, TensorData) else end.sample(MOMENT_SAMPLES)
    x = samples.flatten(1).double()
    return x.mean(0), torch.cov(x.mT).reshape(x.shape[1], x.shape[1])
