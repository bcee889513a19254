"""Reference processes with a linear drift: everything follows from a mean factor and a variance."""

import abc

import torch
from torch import Tensor

from sbbridge.config import Forbid
from sbbridge.types import State, Time, as_time, expand_like


class AbstractLinearSDE(abc.ABC, Forbid):
    """A reference process dX = f(t) X dt + g(t) dW, isotropic, t in [0, 1].

    A subclass gives f, g, the mean factor kappa(s, t) and the variance V(s, t) of its transition
    X_t | X_s ~ N(kappa(s, t) X_s, V(s, t) I). Transition, bridge and adjoint follow. Times are `[batch]` or a number;
    coefficients come back in float64.
    """

    @abc.abstractmethod
    def drift_coefficient(self, t: Time | float) -> Tensor:
        """f(t), such that the drift is f(t) x."""

    @abc.abstractmethod
    def diffusion(self, t: Time | float) -> Tensor:
        """g(t)."""

    @abc.abstractmethod
    def mean_factor(self, s: Time | float, t: Time | float) -> Tensor:
        """kappa(s, t) = exp of the integral of f from s to t."""

    @abc.abstractmethod
    def variance(self, s: Time | float, t: Time | float) -> Tensor:
        """V(s, t), the variance of X_t given X_s in every direction."""

    def drift(self, t: Time, x: State) -> State:
        """f(t) x."""
        return expand_like(self.drift_coefficient(t), x) * x

    def transition(self, s: Time | float, t: Time | float, x: State, noise: State) -> State:
        """X_t given X_s = x: kappa(s, t) x + sqrt(V(s, t)) noise."""
        scale = self.variance(s, t).clamp(min=0).sqrt()
        return expand_like(self.mean_factor(s, t), x) * x + expand_like(scale, x) * noise

    def bridge_coefficients(self, t: Time | float, start: Time | float = 0.0,
                            end: Time | float = 1.0) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """(A, B, v) of X_t | X_start, X_end ~ N(A X_start + B X_end, v I).

        A = kappa(start, t) V(t, end) / V(start, end), B = kappa(t, end) V(start, t) / V(start, end),
        v = V(start, t) V(t, end) / V(start, end); from Gaussian conditioning.
        """
        before, after = self.variance(start, t), self.variance(t, end)
        total = self.variance(start, end)
        return (
            self.mean_factor(start, t) * after / total,
            self.mean_factor(t, end) * before / total,
            before * after / total,
        )

    def bridge(self, t: Time, x0: State, x1: State, noise: State) -> State:
        """X_t on the reference bridge from x0 at time 0 to x1 at time 1."""
        a, b, v = self.bridge_coefficients(t)
        return expand_like(a, x0) * x0 + expand_like(b, x0) * x1 + expand_like(v.clamp(min=0).sqrt(), x0) * noise

    def log_snr(self, t: Time | float) -> Tensor:
        """log(kappa(0, t)^2 / V(0, t)), falling in t."""
        return 2 * self.mean_factor(0.0, t).log() - self.variance(0.0, t).log()

    def adjoint_factor(self, t: Time | float) -> Tensor:
        """kappa(t, 1): the lean adjoint da/dt = −f(t) a carries a_1 back to a_t = kappa(t, 1) a_1 (ASBS, Thm 3.1)."""
        return self.mean_factor(t, 1.0)

    @property
    def retained_memory(self) -> float:
        """m = kappa(0, 1): what the end point's mean keeps of the start."""
        return float(self.mean_factor(0.0, 1.0))

    @property
    def terminal_variance(self) -> float:
        """tau^2 = V(0, 1)."""
        return float(self.variance(0.0, 1.0))

    def is_memoryless(self, tol: float = 0.01) -> bool:
        """True when X_0 and X_1 are all but independent: correlation m / sqrt(m^2 + tau^2) <= tol for unit data."""
        m = self.retained_memory
        return m / (m * m + self.terminal_variance) ** 0.5 <= tol


def ones_like_time(*times: Time | float) -> Tensor:
    """Ones in the common shape of the given times."""
    shape = torch.broadcast_shapes(*[as_time(t).shape for t in times])
    return torch.ones(shape, dtype=torch.float64, device=next((t.device for t in times if isinstance(t, Tensor)), None))
