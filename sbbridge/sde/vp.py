"""The variance-preserving process."""

from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor

from sbbridge.config import require, require_finite
from sbbridge.sde.base import AbstractLinearSDE
from sbbridge.types import Time, as_time


@final
@dataclass(frozen=True)
class VPSDE(AbstractLinearSDE):
    """dX = −½ beta(t) X dt + sigma sqrt(beta(t)) dW, with stationary law N(0, sigma^2 I).

    `linear`: beta(t) = beta_min + (beta_max − beta_min) t; `constant`: beta = (beta_min + beta_max) / 2 throughout,
    which has the same end-point kernel. kappa(s, t) = exp(−½ ∫ beta), V = sigma^2 (1 − kappa^2).
    beta_max = 4 is the ASBM paper's reference, 20 the memoryless baseline's (Song et al. 2021, Eq. 11).
    """

    beta_min: float = 0.1
    beta_max: float = 4.0
    sigma: float = 1.0
    schedule: Literal["linear", "constant"] = "linear"
    kind: Literal["vp"] = field(default="vp", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.beta_min >= 0, f"beta_min must be >= 0, got {self.beta_min}")
        require(self.beta_max > 0, f"beta_max must be > 0, got {self.beta_max}")
        require(self.beta_max >= self.beta_min, f"beta_max must be >= beta_min = {self.beta_min}, got {self.beta_max}")
        require(self.sigma > 0, f"sigma must be > 0, got {self.sigma}")

    def beta(self, t: Time | float) -> Tensor:
        """beta(t)."""
        start, slope = self._line
        return start + slope * as_time(t)

    def drift_coefficient(self, t: Time | float) -> Tensor:
        return -0.5 * self.beta(t)

    def diffusion(self, t: Time | float) -> Tensor:
        return self.sigma * self.beta(t).sqrt()

    def mean_factor(self, s: Time | float, t: Time | float) -> Tensor:
        return torch.exp(-0.5 * self._integral(s, t))

    def variance(self, s: Time | float, t: Time | float) -> Tensor:
        return self.sigma**2 * -torch.expm1(-self._integral(s, t))

    @property
    def _line(self) -> tuple[float, float]:
        if self.schedule == "constant":
            return (self.beta_min + self.beta_max) / 2, 0.0
        return self.beta_min, self.beta_max - self.beta_min

    def _integral(self, s: Time | float, t: Time | float) -> Tensor:
        start, slope = self._line
        s, t = as_time(s), as_time(t)
        return (t - s) * (start + 0.5 * slope * (s + t))
