"""Exponential integrators: the reference is integrated exactly, the steering field's martingale is held over a step.

u / kappa(t, 1) is a martingale along the forward bridge, kappa(0, t) s one along the reversed bridge. Holding it at its
value at the start of a step has weak order 1; the mean of its values at both ends (`heun_…`) weak order 2. Either way
Cov(x0, x1) is exact for any number of steps.
"""

from sbbridge.solvers.base import Dynamics, Noise, needed
from sbbridge.solvers.fields import SMALLEST_TIME, denoise
from sbbridge.types import State, Time, expand_like


def forward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """kappa(t, t') x + V(t, t') u(t, x) / kappa(t, t') + sqrt(V(t, t')) noise; one call a step."""
    free, gain = _free(dynamics, t, t_next, x, noise)
    return free + gain * needed(dynamics.control, "control", "exponential")(t, x)


def heun_forward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """As `forward`, with the mean of u / kappa(t, 1) at x and at the predicted end; two calls a step."""
    control = needed(dynamics.control, "control", "exponential_heun")
    free, gain = _free(dynamics, t, t_next, x, noise)
    factor = expand_like(dynamics.reference.mean_factor(t, t_next), x)
    start = control(t, x)
    end = factor * control(t_next, free + gain * start)
    return free + 0.5 * gain * (start + end)


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """(x + V(t', t) s(t, x)) / kappa(t', t) + sqrt(V(t', t)) / kappa(t', t) noise; the last step is Tweedie's x0hat.

    The mean is ancestral sampling's; the noise is larger (DDPM's beta instead of its posterior variance): exact in the
    limit of broad data as ancestral's is for a point.
    """
    score = needed(dynamics.backward_score, "backward score", "exponential")
    if t_next == 0:
        return denoise(dynamics, t, x)
    free, gain = _free_backward(dynamics, t, t_next, x, noise)
    return free + gain * score(t, x)


def heun_backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """As `backward`, with the mean of kappa(0, t) s at x and at the predicted end; two calls a step but the last.

    A last step that ends at `SMALLEST_TIME`, with its noise, is of first order: there the score is the network's value
    over sqrt(V), all error.
    """
    score = needed(dynamics.backward_score, "backward score", "exponential_heun")
    if t_next == 0:
        return denoise(dynamics, t, x)
    free, gain = _free_backward(dynamics, t, t_next, x, noise)
    start = score(t, x)
    if t_next <= SMALLEST_TIME:
        return free + gain * start
    end = score(t_next, free + gain * start) * expand_like(dynamics.reference.mean_factor(t_next, t) ** -1, x)
    return free + 0.5 * gain * (start + end)


def _free(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> tuple[State, State]:
    """The reference's own step, and the gain of a control that is held at its value at t."""
    factor, variance = dynamics.reference.mean_factor(t, t_next), dynamics.reference.variance(t, t_next)
    free = expand_like(factor, x) * x + expand_like(variance.sqrt(), x) * noise()
    return free, expand_like(variance / factor, x)


def _free_backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> tuple[State, State]:
    """The reversed reference's own step, and the gain of a score that is held at its value at t."""
    factor, variance = dynamics.reference.mean_factor(t_next, t), dynamics.reference.variance(t_next, t)
    free = x / expand_like(factor, x) + expand_like(variance.sqrt() / factor, x) * noise()
    return free, expand_like(variance / factor, x)
