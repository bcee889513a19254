"""What a network that samples are drawn from predicts, in both forms: a backward score, or a velocity."""

import abc
from typing import final

import torch
from torch import Tensor

from sbbridge.coupling import Batch
from sbbridge.methods.base import FIRST_TIME, Draw
from sbbridge.objectives import Regression, backward_bridge_matching, flow_matching
from sbbridge.sde import AbstractLinearSDE
from sbbridge.solvers import Dynamics
from sbbridge.types import Field, State, Time, expand_like


class AbstractPrediction(abc.ABC):
    """How a network's value is learned from pairs and read as an image."""

    @abc.abstractmethod
    def regression(self, pair: Batch, draw: Draw) -> Regression:
        """Fits the network to pairs x0, x1, at a time of the draw."""

    @abc.abstractmethod
    def slope(self, t: Time) -> Tensor:
        """d x0hat / d value."""

    @abc.abstractmethod
    def image(self, t: Time, x: State, value: State) -> State:
        """x0hat = E[x0 | x_t = x], given the network's value."""

    @abc.abstractmethod
    def dynamics(self, network: Field, control: Field | None = None) -> Dynamics:
        """What samplers see."""

    @abc.abstractmethod
    def value(self, field: Field) -> Field:
        """The network's value where the field itself is known."""


@final
class BackwardScore(AbstractPrediction):
    """The network says sqrt(V(0, t)) ∇log phihat_t, and learns it by backward bridge matching, t in [1e-5, 1]."""

    def __init__(self, reference: AbstractLinearSDE) -> None:
        self.reference = reference

    def regression(self, pair: Batch, draw: Draw) -> Regression:
        t = draw.time(FIRST_TIME)
        return backward_bridge_matching(self.reference, t, pair["x0"], pair["x1"], draw.noise(pair["x0"]))

    def slope(self, t: Time) -> Tensor:
        return self._scale(t) / self.reference.mean_factor(0.0, t)

    def image(self, t: Time, x: State, value: State) -> State:
        return x / expand_like(self.reference.mean_factor(0.0, t), x) + expand_like(self.slope(t), x) * value

    def dynamics(self, network: Field, control: Field | None = None) -> Dynamics:
        def score(t: Time, x: State) -> State:
            return network(t, x) / expand_like(self._scale(t), x)

        return Dynamics(self.reference, control, score)

    def value(self, field: Field) -> Field:
        def known(t: Time, x: State) -> State:
            return expand_like(self._scale(t), x) * field(t, x)

        return known

    def _scale(self, t: Time) -> Tensor:
        return self.reference.variance(0.0, t).sqrt()


@final
class Velocity(AbstractPrediction):
    """The network says v = E[x1 − x0 | x_t] along straight lines, t in [0, 1]."""

    def __init__(self, reference: AbstractLinearSDE) -> None:
        self.reference = reference

    def regression(self, pair: Batch, draw: Draw) -> Regression:
        return flow_matching(draw.time(), pair["x0"], pair["x1"])

    def slope(self, t: Time) -> Tensor:
        return -t

    def image(self, t: Time, x: State, value: State) -> State:
        return x - expand_like(t, x) * value

    def dynamics(self, network: Field, control: Field | None = None) -> Dynamics:
        return Dynamics(self.reference, control, velocity=network)

    def value(self, field: Field) -> Field:
        return field


def one_time(t: float, like: State) -> Time:
    """The same time for a whole batch, `[batch]`."""
    return torch.full((len(like),), t, dtype=torch.float64, device=like.device)
