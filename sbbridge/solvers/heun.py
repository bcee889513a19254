"""Euler's and Heun's methods on the probability-flow ODE, in t and in sigma."""

import torch

from sbbridge.solvers.base import Dynamics, Noise
from sbbridge.solvers.fields import SMALLEST_TIME, denoise, noise_path, velocity
from sbbridge.types import State, Time, expand_like


def euler(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """x + (t' − t) v(t, x); first order."""
    return x + expand_like(t_next - t, x) * velocity(dynamics, "euler")(t, x)


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """Average of the velocities at both ends of the step; second order. The last step, to t = 0, is Euler's."""
    field = velocity(dynamics, "heun")
    dt = expand_like(t_next - t, x)
    start = field(t, x)
    predicted = x + dt * start
    return predicted if t_next == 0 else x + 0.5 * dt * (start + field(t_next, predicted))


def edm(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """Heun's method on d(x/a) / d(sigma) = (x/a − x0hat) / sigma, sigma = b/a (Karras et al. 2022, Alg. 1).

    The same ODE as `backward`, but its curvature in these variables is the denoiser's alone. The last step is Euler's,
    which is x0hat. Where a(1) = 0 (straight lines), the first step, from infinite sigma, is DDIM's.

    Raises:
        ValueError: the reference is not memoryless.
    """
    path = noise_path(dynamics, "edm_heun")
    x0 = denoise(dynamics, t, x)
    if t_next == 0:
        return x0
    t = t.clamp(min=SMALLEST_TIME)
    predicted = path.at(t_next, x0, path.eps(t, x, x0))
    if path.mean(t) == 0:
        return predicted
    sigma, sigma_next = path.scale(t) / path.mean(t), path.scale(t_next) / path.mean(t_next)
    scaled, slope = x / expand_like(path.mean(t), x), path.eps(t, x, x0)
    slope_next = path.eps(t_next, predicted, denoise(dynamics, t_next, predicted))
    moved = scaled + 0.5 * expand_like(sigma_next - sigma, x) * (slope + slope_next)
    return expand_like(path.mean(t_next), x) * moved


def generator(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """G(x): the one step of a distilled method.

    Raises:
        ValueError: the method was not distilled, or the grid has more than one step.
    """
    if dynamics.generator is None:
        raise ValueError("the one_step scheme needs a generator, which only a distilled method has")
    if t_next != 0:
        raise ValueError("the one_step scheme takes num_steps = 1")
    return dynamics.generator(torch.ones_like(t), x)
