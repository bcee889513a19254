"""Bridge matching, backward and forward, on pairs of any coupling (Shi et al. 2023, Sec. 3; ASBM, stage 2)."""

from sbbridge.objectives.base import Regression
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import State, Time, expand_like


def backward_bridge_matching(reference: AbstractLinearSDE, t: Time, x0: State, x1: State, noise: State) -> Regression:
    """Fit sqrt(V) s(t, x_t) to (kappa x0 − x_t) / sqrt(V), with kappa = kappa(0, t), V = V(0, t), t > 0.

    The minimiser is s = E[∇log p(x_t | x0) | x_t]: ∇log phihat_t for the bridge's coupling, the score ∇log p_t when
    x1 is the reference's own (denoising score matching).
    """
    x = reference.bridge(t, x0, x1, noise)
    mean, scale = reference.mean_factor(0.0, t), reference.variance(0.0, t).sqrt()
    return Regression(t, x, (expand_like(mean, x) * x0 - x) / expand_like(scale, x))


def forward_bridge_matching(reference: AbstractLinearSDE, t: Time, x0: State, x1: State, noise: State) -> Regression:
    """Fit u(t, x_t) to kappa (x1 − kappa x_t) / V, with kappa = kappa(t, 1), V = V(t, 1), weighted by V; t < 1.

    The minimiser is E[∇_{x_t} log p(x1 | x_t) | x_t], the drift of the Markovian projection of the coupling's bridges.
    """
    x = reference.bridge(t, x0, x1, noise)
    factor, variance = reference.mean_factor(t, 1.0), reference.variance(t, 1.0)
    k = expand_like(factor, x)
    return Regression(t, x, k * (x1 - k * x) / expand_like(variance, x), weight=variance)
