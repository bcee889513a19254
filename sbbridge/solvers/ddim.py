"""DDIM: steps along x_t = a x0 + b eps that keep the predicted noise."""

from torch import Tensor

from sbbridge.solvers.base import Dynamics, Noise
from sbbridge.solvers.fields import SMALLEST_TIME, denoise, noise_path
from sbbridge.types import State, Time, expand_like


def backward(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise, eta: float = 0.0) -> State:
    """a(t') x0hat + sqrt(b(t')^2 − c^2) epshat + c noise (Song et al. 2021, Eq. 12).

    c = eta times the standard deviation of x_{t'} given x0 and x_t in the Markov chain with these marginals: eta = 0 is
    deterministic (on straight lines Euler's method), eta = 1 DDPM's sampler with the posterior's variance.

    Raises:
        ValueError: the reference is not memoryless: elsewhere x_t given x0 is not data plus independent noise.
    """
    path = noise_path(dynamics, "ddim")
    x0 = denoise(dynamics, t, x)
    if t_next == 0:
        return x0
    t = t.clamp(min=SMALLEST_TIME)
    eps = path.eps(t, x, x0)
    if eta == 0:
        return path.at(t_next, x0, eps)
    a_next, b_next = path.mean(t_next), path.scale(t_next)
    kept, added = split_noise(path.mean(t), path.scale(t), a_next, b_next, eta)
    return expand_like(a_next, x) * x0 + expand_like(kept, x) * eps + expand_like(added, x) * noise()


def split_noise(a: Tensor, b: Tensor, a_next: Tensor, b_next: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """How much of b' is predicted noise, and how much is drawn anew: (sqrt(b'^2 − c^2), c).

    c = eta b' sqrt(1 − (a b' / (a' b))^2): eta times the posterior's standard deviation in the chain in which x_t is
    x_{t'} scaled by a / a' with noise added.
    """
    added = eta * b_next * (1 - (a * b_next / (a_next * b)) ** 2).clamp(min=0).sqrt()
    return (b_next**2 - added**2).clamp(min=0).sqrt(), added
