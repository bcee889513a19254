"""What schemes make of a method's fields: the denoised image, and the velocity of the probability flow."""

from functools import partial

import torch

from sbbridge.path import LINEAR, GaussianPath
from sbbridge.sde import AbstractLinearSDE, ProbabilityFlowODE
from sbbridge.solvers.base import Dynamics, needed
from sbbridge.types import Field, State, Time, expand_like

SMALLEST_TIME = 1e-5
"""Backward networks are learned for t >= this."""
MEMORYLESS = 0.05
"""Largest correlation between the ends at which a reference counts as memoryless for samplers."""


def denoise(dynamics: Dynamics, t: Time, x: State) -> State:
    """E[x0 | x_t = x]: (x + V(0, t) s(t, x)) / kappa(0, t) (Tweedie), or x − t v(t, x) along straight lines."""
    t = torch.clamp(t, min=SMALLEST_TIME)
    if dynamics.velocity is not None:
        return x - expand_like(t, x) * dynamics.velocity(t, x)
    score = needed(dynamics.backward_score, "backward score", "denoising")
    reference = dynamics.reference
    return (x + expand_like(reference.variance(0.0, t), x) * score(t, x)) / expand_like(
        reference.mean_factor(0.0, t), x
    )


def reference_path(reference: AbstractLinearSDE) -> GaussianPath:
    """x_t given x0 under the reference: kappa(0, t) x0 + sqrt(V(0, t)) eps."""
    return GaussianPath(partial(reference.mean_factor, 0.0), lambda t: reference.variance(0.0, t).sqrt())


def noise_path(dynamics: Dynamics, scheme: str) -> GaussianPath:
    """The path along which x_t is data plus noise that is independent of them.

    Raises:
        ValueError: the reference remembers its start: then x_t given x0 depends on where the bridge ends.
    """
    if dynamics.velocity is not None:
        return LINEAR
    needed(dynamics.backward_score, "backward score", scheme)
    memory = dynamics.reference.retained_memory
    if not dynamics.reference.is_memoryless(MEMORYLESS):
        raise ValueError(f"{scheme} needs a memoryless reference, this one retains m = {memory:.3g}")
    return reference_path(dynamics.reference)


def velocity(dynamics: Dynamics, scheme: str) -> Field:
    """dx/dt of the probability flow: the learned velocity, or f x + ½ g^2 (u − s).

    A method without a control must be memoryless: its flow has u = 0 and calls one network instead of two.
    """
    if dynamics.velocity is not None:
        return _from_smallest_time(dynamics.velocity)
    score = needed(dynamics.backward_score, "backward score", scheme)
    control = dynamics.control
    if control is None:
        if not dynamics.reference.is_memoryless(MEMORYLESS):
            needed(None, "control", scheme)
        control = _no_control
    return _from_smallest_time(ProbabilityFlowODE(dynamics.reference, control, score).velocity)


def _from_smallest_time(field: Field) -> Field:
    return lambda t, x: field(torch.clamp(t, min=SMALLEST_TIME), x)


def _no_control(t: Time, x: State) -> State:
    return torch.zeros_like(x)
