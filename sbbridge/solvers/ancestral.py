"""Ancestral sampling: predict x0, then draw from the reference bridge between it and the present state."""

import torch

from sbbridge.solvers.base import Dynamics, Noise, needed
from sbbridge.types import State, Time, expand_like

SMALLEST_TIME = 1e-5
"""Backward scores are learned for t >= this."""


def denoise(dynamics: Dynamics, t: Time, x: State) -> State:
    """x0hat = (x + V(0, t) s(t, x)) / kappa(0, t) = E[x0 | x_t = x] (Tweedie)."""
    score = needed(dynamics.backward_score, "backward score", "ancestral")
    t = torch.clamp(t, min=SMALLEST_TIME)
    reference = dynamics.reference
    return (x + expand_like(reference.variance(0.0, t), x) * score(t, x)) / expand_like(
        reference.mean_factor(0.0, t), x
    )


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """A draw of x_{t'} from the reference bridge pinned at x0hat (time 0) and x (time t); at t' = 0, x0hat itself.

    Valid for every Schrödinger bridge: given x0 and x_t, the path is the reference's bridge. DDPM's sampler is the
    memoryless case.
    """
    x0 = denoise(dynamics, t, x)
    if t_next == 0:
        return x0
    a, b, v = dynamics.reference.bridge_coefficients(t_next, 0.0, t)
    return expand_like(a, x) * x0 + expand_like(b, x) * x + expand_like(v.sqrt(), x) * noise()
