"""Euler–Maruyama, forward with the control and backward with the backward score. Strong order 1 (additive noise)."""

import torch

from sbbridge.sde import ControlledSDE, ReverseSDE
from sbbridge.solvers.base import Dynamics, Noise, needed
from sbbridge.solvers.fields import SMALLEST_TIME
from sbbridge.types import State, Time, expand_like


def forward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """x + (f + g^2 u) dt + g sqrt(dt) noise."""
    sde = ControlledSDE(dynamics.reference, needed(dynamics.control, "control", "euler_maruyama"))
    dt = t_next - t
    return x + expand_like(dt, x) * sde.drift(t, x) + expand_like(dt.sqrt() * sde.reference.diffusion(t), x) * noise()


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """x − (f − g^2 s) dt + g sqrt(dt) noise with dt = t − t_next; the last step, to t = 0, is free of noise."""
    score = needed(dynamics.backward_score, "backward score", "euler_maruyama")
    sde = ReverseSDE(dynamics.reference, score)
    dt = t - t_next
    t = torch.clamp(t, min=SMALLEST_TIME)
    x = x - expand_like(dt, x) * sde.drift(t, x)
    return x if t_next == 0 else x + expand_like(dt.sqrt() * sde.reference.diffusion(t), x) * noise()
