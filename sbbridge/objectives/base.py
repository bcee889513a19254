"""What an objective returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor

from sbbridge.types import State, Time


def mean_square(x: State, y: State) -> Tensor:
    """Mean of (x − y)^2 over all axes but the first, `[n]`."""
    return (x - y).square().flatten(1).mean(1)


@final
@dataclass(frozen=True)
class Regression:
    """Fit a network's value at (t, x) to a target: loss = mean of weight · distance(prediction, target) over the batch.

    Attributes:
        t: `[batch]`.
        x: states, `[batch, *shape]`.
        target: what the network should say there, in the mean.
        weight: `[batch]`, or None for 1.
        calls: network evaluations that the loss of one row takes, in the mean.
        distance: of each row of a prediction from its target.
    """

    t: Time
    x: State
    target: State
    weight: Tensor | None = None
    calls: float = 1
    distance: Callable[[State, State], Tensor] = mean_square

    def loss(self, prediction: State) -> Tensor:
        """The weighted mean distance."""
        distance = self.distance(prediction, self.target)
        return (distance if self.weight is None else self.weight.to(distance) * distance).mean()
