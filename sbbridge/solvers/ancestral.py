"""Ancestral sampling: predict x0, then draw from the reference bridge between it and the present state."""

from sbbridge.solvers.base import Dynamics, Noise, needed
from sbbridge.solvers.fields import denoise
from sbbridge.types import State, Time, expand_like


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """A draw of x_{t'} from the reference bridge pinned at x0hat (time 0) and x (time t); at t' = 0, x0hat itself.

    Valid for every Schrödinger bridge: given x0 and x_t, the path is the reference's bridge. DDPM's sampler is the
    memoryless case.
    """
    needed(dynamics.backward_score, "backward score", "ancestral")
    x0 = denoise(dynamics, t, x)
    if t_next == 0:
        return x0
    a, b, v = dynamics.reference.bridge_coefficients(t_next, 0.0, t)
    return expand_like(a, x) * x0 + expand_like(b, x) * x + expand_like(v.sqrt(), x) * noise()
