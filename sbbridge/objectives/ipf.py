"""Mean matching on single steps of simulated paths: the regressions of DSB and of its simplification.

A step of the forward process is x' ~ N(F(x), g^2 dt) with F(x) = x + dt (f x + g^2 u(t, x)), one of the backward
process x ~ N(B(x'), g^2 dt) with B(x') = x' − dt (f x' − g^2 s(t', x')); dt = t' − t > 0. Each half of an iteration
fits one process to the time reversal of the other. Losses are weighted by g^2 dt, so that targets have unit noise.
"""

import torch

from sbbridge.objectives.base import Regression
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import Field, State, Time, expand_like


def backward_mean_matching(reference: AbstractLinearSDE, t: Time, t_next: Time, x: State, x_next: State,
                           control: Field | None) -> Regression:  # fmt: skip
    """Fit s(t', x') by the forward path's step x -> x': B(x') = x' + F(x) − F(x') (De Bortoli et al. 2021, Eq. 12).

    Without the control the target is x itself (simplified DSB, Tang et al. 2024, Eq. 11), which has the same minimiser
    in the limit of small steps and needs no network calls.
    """
    dt, g2 = expand_like(t_next - t, x), expand_like(reference.diffusion(t_next) ** 2, x)
    target = x - x_next
    if control is not None:
        gain = expand_like(reference.diffusion(t) ** 2, x)
        forward, shifted = (reference.drift(t, y) + gain * control(t, y) for y in (x, x_next))
        target = target + dt * (forward - shifted)
    target = (target + dt * reference.drift(t_next, x_next)) / (g2 * dt)
    return Regression(t_next, x_next, target, weight=_weight(reference, t_next, t_next - t))


def forward_mean_matching(reference: AbstractLinearSDE, t: Time, t_next: Time, x: State, x_next: State,
                          score: Field | None) -> Regression:  # fmt: skip
    """Fit u(t, x) by the backward path's step x' -> x: F(x) = x + B(x') − B(x); without the score, x' itself."""
    dt, g2 = expand_like(t_next - t, x), expand_like(reference.diffusion(t) ** 2, x)
    target = x_next - x
    if score is not None:
        gain = expand_like(reference.diffusion(t_next) ** 2, x)
        backward, shifted = (gain * score(t_next, y) - reference.drift(t_next, y) for y in (x_next, x))
        target = target + dt * (backward - shifted)
    target = (target - dt * reference.drift(t, x)) / (g2 * dt)
    return Regression(t, x, target, weight=_weight(reference, t, t_next - t))


def _weight(reference: AbstractLinearSDE, t: Time, dt: Time) -> torch.Tensor:
    return reference.diffusion(t) ** 2 * dt
