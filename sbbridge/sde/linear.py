"""The process whose mean and variance are linear in time."""

from dataclasses import dataclass, field
from typing import Literal, final

from torch import Tensor

from sbbridge.config import require, require_finite
from sbbridge.sde.base import AbstractLinearSDE
from sbbridge.types import Time, as_time


@final
@dataclass(frozen=True)
class LinearSDE(AbstractLinearSDE):
    """X_t | x0 ~ N((1 − c t) x0, sigma^2 t I): dX = −c X / (1 − c t) dt + sigma sqrt((1 + c t) / (1 − c t)) dW.

    The defaults have the end-point kernel of `VPSDE(0.1, 4.0)`, hence the same optimal coupling; only the
    interpolation between the ends differs (ASBM's released code).

    Attributes:
        decay: c in [0, 1); the mean keeps 1 − c.
        sigma: the end point's standard deviation given the start.
    """

    decay: float = 0.6412035
    sigma: float = 0.9334158
    kind: Literal["linear"] = field(default="linear", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(0 <= self.decay < 1, f"decay must be in [0, 1), got {self.decay}")
        require(self.sigma > 0, f"sigma must be > 0, got {self.sigma}")

    def drift_coefficient(self, t: Time | float) -> Tensor:
        return -self.decay / self._mean(t)

    def diffusion(self, t: Time | float) -> Tensor:
        return self.sigma * ((2 - self._mean(t)) / self._mean(t)).sqrt()

    def mean_factor(self, s: Time | float, t: Time | float) -> Tensor:
        return self._mean(t) / self._mean(s)

    def variance(self, s: Time | float, t: Time | float) -> Tensor:
        return self.sigma**2 * (as_time(t) - self.mean_factor(s, t) ** 2 * as_time(s))

    def _mean(self, t: Time | float) -> Tensor:
        return 1 - self.decay * as_time(t)
