"""The Gaussian Schrödinger bridge, solved in closed form for every linear reference."""

from functools import cached_property
from typing import Any, final

import torch
from torch import Tensor

from sbbridge.arguments import whole
from sbbridge.data.gaussians import Gaussian, symmetric_sqrt
from sbbridge.problems.problem import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import Pair, State, Time, as_time


@final
class GaussianBridge(BridgeProblem):
    """N(mean0, cov0) at t = 0, N(mean1, cov1) at t = 1, and every quantity of the bridge between them.

    With the reference's end-point kernel N(m x0, tau^2 I), y0 = m x0 reduces the problem to Brownian motion
    (Bunne et al. 2023, Thm 3). No formula inverts cov0, so both may be singular; only quantities that do not exist
    for a singular cov1 (the prior's score) are refused there.

    Args:
        mean0, cov0, mean1, cov1: array-likes `[d]`, `[d, d]`; numbers for d = 1.
        reference: any linear reference process.

    Attributes:
        mean0, cov0, mean1, cov1: of the two ends, float64.
    """

    def __init__(self, mean0: Any, cov0: Any, mean1: Any, cov1: Any, reference: AbstractLinearSDE) -> None:
        data, prior = Gaussian(mean0, cov0), Gaussian(mean1, cov1)
        super().__init__(data, prior, reference)
        self.mean0, self.cov0 = data.mean, data.covariance
        self.mean1, self.cov1 = prior.mean, prior.covariance
        self._m, self._tau2 = reference.retained_memory, reference.terminal_variance

    @cached_property
    def posterior_gain(self) -> Tensor:
        """G `[d, d]` with E[x0 | x1] = mean0 + G (x1 − mean1): 2m S0^½ (D + tau^2 I)⁻¹ S0^½.

        D = (4 m^2 S0^½ S1 S0^½ + tau^4 I)^½.
        """
        root = symmetric_sqrt(self.cov0)
        identity = torch.eye(len(root), dtype=root.dtype)
        d = symmetric_sqrt(4 * self._m**2 * root @ self.cov1 @ root + self._tau2**2 * identity)
        return 2 * self._m * root @ torch.linalg.solve(d + self._tau2 * identity, root)

    @cached_property
    def coupling_covariance(self) -> Tensor:
        """C = Cov(x0, x1) of the exact bridge, `[d, d]`."""
        return self.posterior_gain @ self.cov1

    @cached_property
    def conditional_covariance0(self) -> Tensor:
        """Cov(x0 | x1), `[d, d]`."""
        return self.cov0 - self.posterior_gain @ self.cov1 @ self.posterior_gain.mT

    @cached_property
    def conditional_covariance1(self) -> Tensor:
        """Cov(x1 | x0), `[d, d]`: S1 − C^T S0⁻¹ C without the inverse."""
        root = symmetric_sqrt(self.cov0)
        identity = torch.eye(len(root), dtype=root.dtype)
        d = symmetric_sqrt(4 * self._m**2 * root @ self.cov1 @ root + self._tau2**2 * identity)
        half = torch.linalg.solve(d + self._tau2 * identity, root @ self.cov1)
        return self.cov1 - 4 * self._m**2 * half.mT @ half

    @cached_property
    def _eigen0(self) -> tuple[Tensor, Tensor]:
        return _eigen(self.conditional_covariance0)

    @cached_property
    def _eigen1(self) -> tuple[Tensor, Tensor]:
        return _eigen(self.conditional_covariance1)

    @property
    def transport_cost(self) -> float:
        """E |x1 − x0|^2 of the exact bridge."""
        spread = self.cov0.trace() + self.cov1.trace() - 2 * self.coupling_covariance.trace()
        return float(spread + (self.mean0 - self.mean1).square().sum())

    def marginal(self, t: Time | float) -> Gaussian:
        """The law of x_t on the bridge."""
        a, b, v = self.reference.bridge_coefficients(t)
        cross = self.coupling_covariance + self.coupling_covariance.mT
        identity = torch.eye(len(cross), dtype=cross.dtype)
        covariance = a * a * self.cov0 + b * b * self.cov1 + a * b * cross + v.clamp(min=0) * identity
        return Gaussian(a * self.mean0 + b * self.mean1, (covariance + covariance.mT) / 2)

    def control(self, t: Time, x: State) -> State:
        """u* = ∇log phi_t(x), the optimal control.

        With S = Cov(x1 | x0), k = kappa(t, 1), v = V(t, 1) and W = ((1 − v / tau^2) S + v I)⁻¹:
        u* = −k^2 (I − S / tau^2) W x + k W (mean1 − (m / tau^2) S mean0).
        """
        t = as_time(t)
        k, v = self.reference.mean_factor(t, 1.0), self.reference.variance(t, 1.0)
        return _affine(
            x, self._eigen1, 1 - v / self._tau2, v,
            linear=(k * k, -1 / self._tau2), offset=(k, self.mean1, self._m / self._tau2, self.mean0),
        )  # fmt: skip

    def backward_score(self, t: Time, x: State) -> State:
        """∇log phihat_t(x) for t > 0, what the backward process adds to the reversed reference.

        With S = Cov(x0 | x1), al = kappa(0, t), V = V(0, t) and K = (al^2 V(t, 1) / tau^2 S + V I)⁻¹:
        −(I − (m^2 / tau^2) S) K x + al K (mean0 − (m / tau^2) S mean1).
        """
        t = as_time(t)
        alpha, v = self.reference.mean_factor(0.0, t), self.reference.variance(0.0, t)
        rest = self.reference.variance(t, 1.0)
        return _affine(
            x, self._eigen0, alpha**2 * rest / self._tau2, v,
            linear=(torch.ones_like(v), -self._m**2 / self._tau2),
            offset=(alpha, self.mean0, self._m / self._tau2, self.mean1),
        )  # fmt: skip

    def corrector(self, x: State) -> State:
        """h* = ∇log phihat_1(x) = (m E[x0 | x1 = x] − x) / tau^2."""
        x64 = x.double()
        posterior_mean = self.mean0.to(x.device) + (x64 - self.mean1.to(x.device)) @ self.posterior_gain.mT.to(x.device)
        return ((self._m * posterior_mean - x64) / self._tau2).to(x)

    def couple(self, n: int, seed: int = 0) -> Pair:
        """n pairs of the exact coupling."""
        n, seed = whole("n", n), whole("seed", seed, None)
        stream = Stream(seed, ("couple",))
        x1 = self.prior.draw(0, range(n), stream.child("x1"))
        z = stream.child("x0").normal(0, range(n), self.shape)
        residual = z @ symmetric_sqrt(self.conditional_covariance0).to(z)
        x0 = self.mean0.to(z) + (x1 - self.mean1.to(z)) @ self.posterior_gain.mT.to(z) + residual
        return Pair(x0, x1)


def _eigen(s: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh((s + s.mT) / 2)
    return values.clamp(min=0), vectors


def _affine(x: State, eigen: tuple[Tensor, Tensor], weight: Tensor, shift: Tensor, linear: tuple[Tensor, float],
            offset: tuple[Tensor, Tensor, float, Tensor]) -> State:  # fmt: skip
    """−c (I + r S) W x + k W (a − q S b), W = (weight S + shift I)⁻¹, in S's eigenbasis, for per-sample times."""
    values, vectors = (part.to(x.device) for part in eigen)

    def column(number: Tensor) -> Tensor:
        return number.to(x.device).reshape(-1, 1)

    c, r = linear
    k, a, q, b = offset
    w = 1 / (column(weight) * values + column(shift))
    y = x.double() @ vectors
    a_, b_ = a.to(x.device) @ vectors, b.to(x.device) @ vectors
    y = w * (-column(c) * (1 + r * values) * y + column(k) * (a_ - q * values * b_))
    return (y @ vectors.mT).to(x)
