"""Couplings that need no simulation."""

from dataclasses import dataclass
from typing import final

from sbbridge.coupling.base import AbstractCoupling
from sbbridge.data import AbstractDistribution
from sbbridge.rng import Stream
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import Pair, as_time


@final
@dataclass(frozen=True)
class IndependentCoupling(AbstractCoupling):
    """x0 from the data and x1 from the prior, independently."""

    data: AbstractDistribution
    prior: AbstractDistribution

    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        return Pair(self.data.draw(step, rows, stream.child("x0")), self.prior.draw(step, rows, stream.child("x1")))


@final
@dataclass(frozen=True)
class ReferenceCoupling(AbstractCoupling):
    """x0 from the data, x1 by the uncontrolled reference's closed-form transition; its x1 is not the prior."""

    data: AbstractDistribution
    reference: AbstractLinearSDE

    def draw(self, step: int, rows: range, stream: Stream) -> Pair:
        x0 = self.data.draw(step, rows, stream.child("x0"))
        noise = stream.child("noise").normal(step, rows, self.data.shape)
        return Pair(x0, self.reference.transition(as_time(0.0), as_time(1.0), x0, noise))
