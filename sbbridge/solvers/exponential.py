"""The exponential integrator of the controlled forward process."""

from sbbridge.solvers.base import Dynamics, Noise, needed
from sbbridge.types import State, Time, expand_like


def forward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """kappa(t, t') x + V(t, t') u(t, x) / kappa(t, t') + sqrt(V(t, t')) noise.

    u / kappa(t, 1) is a martingale along the bridge; freezing it over a step, instead of u, integrates the rest
    exactly: Cov(x0, x1) is exact for any number of steps, and the terminal variance nearly so.
    """
    control = needed(dynamics.control, "control", "exponential")
    factor, variance = dynamics.reference.mean_factor(t, t_next), dynamics.reference.variance(t, t_next)
    steered = expand_like(factor, x) * x + expand_like(variance / factor, x) * control(t, x)
    return steered + expand_like(variance.sqrt(), x) * noise()
