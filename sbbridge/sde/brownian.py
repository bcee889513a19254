"""Brownian motion."""

from dataclasses import dataclass, field
from typing import Literal, final

from torch import Tensor

from sbbridge.config import require, require_finite
from sbbridge.sde.base import AbstractLinearSDE, ones_like_time
from sbbridge.types import Time, as_time


@final
@dataclass(frozen=True)
class BrownianMotion(AbstractLinearSDE):
    """dX = sigma dW: no drift, transition variance sigma^2 (t − s), bridge variance sigma^2 t (1 − t)."""

    sigma: float = 1.0
    kind: Literal["brownian"] = field(default="brownian", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.sigma > 0, f"sigma must be > 0, got {self.sigma}")

    def drift_coefficient(self, t: Time | float) -> Tensor:
        return 0.0 * ones_like_time(t)

    def diffusion(self, t: Time | float) -> Tensor:
        return self.sigma * ones_like_time(t)

    def mean_factor(self, s: Time | float, t: Time | float) -> Tensor:
        return ones_like_time(s, t)

    def variance(self, s: Time | float, t: Time | float) -> Tensor:
        return self.sigma**2 * (as_time(t) - as_time(s))
