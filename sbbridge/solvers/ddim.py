"""DDIM: deterministic steps of a memoryless process along x_t = kappa x0 + sqrt(V) eps."""

import torch

from sbbridge.solvers.ancestral import SMALLEST_TIME, denoise
from sbbridge.solvers.base import Dynamics, Noise
from sbbridge.types import State, Time, expand_like


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
    """kappa(0, t') x0hat + sqrt(V(0, t')) epshat (Song et al. 2021, Eq. 12 with eta = 0).

    Only for memoryless references: elsewhere x_t given x0 is not kappa x0 + sqrt(V) eps with independent eps.
    """
    reference = dynamics.reference
    t = torch.clamp(t, min=SMALLEST_TIME)
    x0 = denoise(dynamics, t, x)
    if t_next == 0:
        return x0
    eps = (x - expand_like(reference.mean_factor(0.0, t), x) * x0) / expand_like(reference.variance(0.0, t).sqrt(), x)
    mean = expand_like(reference.mean_factor(0.0, t_next), x) * x0
    return mean + expand_like(reference.variance(0.0, t_next).sqrt(), x) * eps
