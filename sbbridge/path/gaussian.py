"""Straight noise: x_t = a(t) x0 + b(t) eps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from sbbridge.types import State, Time, as_time, expand_like


@final
@dataclass(frozen=True)
class GaussianPath:
    """x_t = mean(t) x0 + scale(t) eps, from data at t = 0 to noise at t = 1.

    Attributes:
        mean: a(t), falling.
        scale: b(t), rising from 0.
    """

    mean: Callable[[Time], Tensor]
    scale: Callable[[Time], Tensor]

    def log_snr(self, t: Time | float) -> Tensor:
        """log(a^2 / b^2), falling in t; infinite where either is 0."""
        t = as_time(t)
        return 2 * (self.mean(t).log() - self.scale(t).log())

    def eps(self, t: Time, x: State, x0: State) -> State:
        """(x − a x0) / b."""
        return (x - expand_like(self.mean(t), x) * x0) / expand_like(self.scale(t), x)

    def at(self, t: Time, x0: State, eps: State) -> State:
        """a x0 + b eps."""
        return expand_like(self.mean(t), x0) * x0 + expand_like(self.scale(t), x0) * eps


LINEAR = GaussianPath(lambda t: 1 - t, lambda t: t)
"""Flow matching's (1 − t) x0 + t x1."""
