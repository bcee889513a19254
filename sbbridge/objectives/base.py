"""What an objective returns."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from sbbridge.types import State, Time, expand_like


@final
@dataclass(frozen=True)
class Regression:
    """Fit a network's value at (t, x) to a target: loss = mean of weight (prediction − target)^2 over batch and axes.

    Attributes:
        t: `[batch]`.
        x: states, `[batch, *shape]`.
        target: what the network should say there, in the mean.
        weight: `[batch]`, or None for 1.
        calls: network evaluations that the prediction of one row takes, in the mean.
    """

    t: Time
    x: State
    target: State
    weight: Tensor | None = None
    calls: float = 1

    def loss(self, prediction: State) -> Tensor:
        """The weighted mean squared error."""
        square = (prediction - self.target).square()
        return (square if self.weight is None else expand_like(self.weight, square) * square).mean()
