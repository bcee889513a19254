"""The variance-exploding process."""

import math
from dataclasses import dataclass, field
from typing import Literal, final

from torch import Tensor

from sbbridge.config import require, require_finite
from sbbridge.sde.base import AbstractLinearSDE, ones_like_time
from sbbridge.types import Time, as_time


@final
@dataclass(frozen=True)
class VESDE(AbstractLinearSDE):
    """dX = sqrt(d sigma(t)^2 / dt) dW with sigma(t) = sigma_min (sigma_max / sigma_min)^t (Song et al. 2021, Eq. 9).

    The process starts at the data, so V(0, t) = sigma(t)^2 − sigma_min^2.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    kind: Literal["ve"] = field(default="ve", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.sigma_min > 0, f"sigma_min must be > 0, got {self.sigma_min}")
        require(
            self.sigma_max > self.sigma_min, f"sigma_max must be > sigma_min = {self.sigma_min}, got {self.sigma_max}"
        )

    def drift_coefficient(self, t: Time | float) -> Tensor:
        return 0.0 * ones_like_time(t)

    def diffusion(self, t: Time | float) -> Tensor:
        return (2 * math.log(self.sigma_max / self.sigma_min)) ** 0.5 * self._sigma(t)

    def mean_factor(self, s: Time | float, t: Time | float) -> Tensor:
        return ones_like_time(s, t)

    def variance(self, s: Time | float, t: Time | float) -> Tensor:
        return self._sigma(t) ** 2 - self._sigma(s) ** 2

    def _sigma(self, t: Time | float) -> Tensor:
        ratio: Tensor = (self.sigma_max / self.sigma_min) ** as_time(t)
        return self.sigma_min * ratio
