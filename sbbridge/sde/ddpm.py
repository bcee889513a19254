"""The discrete chain of DDPM, as a process in continuous time."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, final

import torch
from torch import Tensor

from sbbridge.config import require, require_finite
from sbbridge.sde.base import AbstractLinearSDE
from sbbridge.types import Time, as_time


@final
@dataclass(frozen=True)
class DDPM(AbstractLinearSDE):
    """The variance-preserving process that passes exactly through the chain of Ho et al. 2020 (Sec. 4).

    The chain's index i = 0 … num_steps − 1 is the time (i + 1) / num_steps, where kappa(0, t)^2 = prod_{j <= i}
    (1 − beta_j), beta_j evenly spaced from `first_beta` to `last_beta`; log kappa is linear in between. Published
    noise predictors of this chain are called at an index (`index`), never at a time.
    """

    num_steps: int = 1000
    first_beta: float = 1e-4
    last_beta: float = 2e-2
    kind: Literal["ddpm"] = field(default="ddpm", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.num_steps >= 2, f"num_steps must be >= 2, got {self.num_steps}")
        require(0 < self.first_beta < 1, f"first_beta must be in (0, 1), got {self.first_beta}")
        require(
            self.first_beta <= self.last_beta < 1,
            f"last_beta must be in [first_beta = {self.first_beta}, 1), got {self.last_beta}",
        )

    def index(self, t: Time | float) -> Tensor:
        """The chain's index at a time, as a real number; negative before the chain begins."""
        return self.num_steps * as_time(t) - 1

    def drift_coefficient(self, t: Time | float) -> Tensor:
        return -0.5 * self._rate(t)

    def diffusion(self, t: Time | float) -> Tensor:
        return self._rate(t).sqrt()

    def mean_factor(self, s: Time | float, t: Time | float) -> Tensor:
        return (0.5 * (self._log(t) - self._log(s))).exp()

    def variance(self, s: Time | float, t: Time | float) -> Tensor:
        return -torch.expm1(self._log(t) - self._log(s))

    @cached_property
    def _steps(self) -> Tensor:
        """log(1 − beta_j), `[num_steps]`."""
        betas = torch.linspace(self.first_beta, self.last_beta, self.num_steps, dtype=torch.float64)
        return torch.log1p(-betas)

    @cached_property
    def _logs(self) -> Tensor:
        """log kappa(0, i / num_steps)^2, `[num_steps + 1]`."""
        return torch.cat([torch.zeros(1, dtype=torch.float64), self._steps.cumsum(0)])

    def _step(self, t: Tensor) -> tuple[Tensor, Tensor]:
        scaled = (self.num_steps * t).clamp(0, self.num_steps)
        # a time that is a step's but for rounding is that step's
        nearest = scaled.round()
        scaled = torch.where((scaled - nearest).abs() < 1e-9, nearest, scaled)
        whole = scaled.floor().clamp(max=self.num_steps - 1).long()
        return whole, scaled - whole

    def _log(self, t: Time | float) -> Tensor:
        whole, rest = self._step(as_time(t))
        return self._logs.to(rest.device)[whole] + rest * self._steps.to(rest.device)[whole]

    def _rate(self, t: Time | float) -> Tensor:
        whole, rest = self._step(as_time(t))
        return -self.num_steps * self._steps.to(rest.device)[whole]
