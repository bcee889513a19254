"""The backward network, common to every method that has one: it predicts sqrt(V) ∇log phihat_t."""

from collections.abc import Callable

from sbbridge.coupling import Batch
from sbbridge.methods.base import FIRST_TIME, Draw
from sbbridge.objectives import Regression, backward_bridge_matching
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import Field, State, Time, expand_like


def backward_score(reference: AbstractLinearSDE, network: Field) -> Field:
    """∇log phihat_t from the network's sqrt(V(0, t)) ∇log phihat_t; t > 0."""

    def score(t: Time, x: State) -> State:
        return network(t, x) / expand_like(reference.variance(0.0, t).sqrt(), x)

    return score


def backward_known_part(reference: AbstractLinearSDE, score: Field) -> Field:
    """The other way: a known score as a known part of the network."""

    def part(t: Time, x: State) -> State:
        return expand_like(reference.variance(0.0, t).sqrt(), x) * score(t, x)

    return part


def backward_objective(reference: AbstractLinearSDE) -> Callable[[Batch, Draw], Regression]:
    """Backward bridge matching on the batch's pairs, t uniform on [FIRST_TIME, 1]."""

    def objective(batch: Batch, draw: Draw) -> Regression:
        t = draw.time(FIRST_TIME)
        return backward_bridge_matching(reference, t, batch["x0"], batch["x1"], draw.noise(batch["x0"]))

    return objective
