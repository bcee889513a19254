"""Denoising score matching (Vincent 2011; Song et al. 2021, Eq. 7)."""

from sbbridge.objectives.base import Regression
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import State, Time, expand_like


def denoising_score_matching(reference: AbstractLinearSDE, t: Time, x0: State, noise: State) -> Regression:
    """Fit sqrt(V) s(t, x_t) to −noise at x_t = kappa x0 + sqrt(V) noise, t > 0; the minimiser is s = ∇log p_t."""
    mean, scale = reference.mean_factor(0.0, t), reference.variance(0.0, t).sqrt()
    x = expand_like(mean, x0) * x0 + expand_like(scale, x0) * noise
    return Regression(t, x, -noise)
