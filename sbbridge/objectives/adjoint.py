"""Adjoint matching: the control's regression (ASBM, stage 1; ASBS, arXiv 2506.22565, Alg. 1)."""

from sbbridge.objectives.base import Regression
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import State, Time, expand_like


def adjoint_matching(reference: AbstractLinearSDE, t: Time, x0: State, x1: State, terminal_adjoint: State,
                     noise: State) -> Regression:  # fmt: skip
    """Fit u(t, x_t) to −kappa(t, 1) a_1 on the reference bridge between x0 and x1.

    a_1 = ∇E(x1) + h(x1) is the gradient of the terminal cost, E the prior's energy and h the corrector; a linear
    drift carries it back as a_t = kappa(t, 1) a_1. The minimiser is E[−a_t | x_t]. No weight in time.

    Args:
        terminal_adjoint: a_1, as computed when the pair was simulated.
        noise: standard normal, shaped as x0.
    """
    factor = expand_like(reference.adjoint_factor(t), x0)
    return Regression(t, reference.bridge(t, x0, x1, noise), -factor * terminal_adjoint)
