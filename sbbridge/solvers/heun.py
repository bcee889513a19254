"""Heun's method on the probability-flow ODE; second order."""

import torch

from sbbridge.sde import ProbabilityFlowODE
from sbbridge.solvers.ancestral import SMALLEST_TIME
from sbbridge.solvers.base import Dynamics, Noise, needed
from sbbridge.types import State, Time, expand_like


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """Average of the velocities at both ends of the step; the last step, to t = 0, is Euler's.

    A method without a control must be memoryless: its ODE has u = 0, and a step calls one network instead of two.
    """
    score = needed(dynamics.backward_score, "backward score", "Heun")
    control = dynamics.control
    if control is None:
        if not dynamics.reference.is_memoryless(0.05):
            needed(None, "control", "Heun")
        control = _no_control
    ode = ProbabilityFlowODE(dynamics.reference, control, score)
    t = torch.clamp(t, min=SMALLEST_TIME)
    dt = expand_like(t_next - t, x)
    velocity = ode.velocity(t, x)
    predicted = x + dt * velocity
    if t_next == 0:
        return predicted
    return x + 0.5 * dt * (velocity + ode.velocity(t_next, predicted))


def _no_control(t: Time, x: State) -> State:
    return torch.zeros_like(x)
