"""A bridge problem that comes with a trained denoiser."""

import torch

from sbbridge.arguments import instance
from sbbridge.data import AbstractDistribution
from sbbridge.path import Denoiser
from sbbridge.problems.problem import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import State, as_time


class DenoisingProblem(BridgeProblem):
    """Data, prior, and a denoiser of x_t = a x0 + b eps to draw samples with in few calls.

    Attributes:
        denoiser: trained elsewhere, fixed here.

    Raises:
        ValueError: the denoiser's path is not the reference's, or the prior is not the noise that it was trained with.
    """

    def __init__(self, data: AbstractDistribution, prior: AbstractDistribution, reference: AbstractLinearSDE,
                 denoiser: Denoiser) -> None:  # fmt: skip
        super().__init__(data, prior, reference)
        self.denoiser = instance("denoiser", denoiser, Denoiser, "a Denoiser such as denoiser_of(solution)")
        if denoiser.prediction != "velocity" and not _same(denoiser, reference):
            raise ValueError("denoiser was trained along another noise schedule than reference's (pass the reference "
                             "that it was trained with)")  # fmt: skip
        if not denoiser.own_prior:
            one = as_time(1.0)
            mean, scale = float(denoiser.path.mean(one)), float(denoiser.path.scale(one))
            self.require_noise("a denoiser", scale, mean)


def unit_noise(problem: BridgeProblem, step: int, rows: range, stream: Stream) -> State:
    """eps of a denoiser's x_t = a x0 + b eps: the prior's draws, in units of the noise that its path ends in.

    A prior at the reference's scale has that scale twice where b has it, too.
    """
    eps = problem.prior.draw(step, rows, stream)
    if not isinstance(problem, DenoisingProblem) or problem.denoiser.own_prior:
        return eps
    one, path = as_time(1.0), problem.denoiser.path
    return eps / round(float(path.scale(one) ** 2 + path.mean(one) ** 2) ** 0.5, 2)  # 1 of what preserves variance


def _same(denoiser: Denoiser, reference: AbstractLinearSDE) -> bool:
    t = torch.linspace(0.1, 1.0, 10, dtype=torch.float64)
    mean, scale = reference.mean_factor(0.0, t), reference.variance(0.0, t).sqrt()
    path = denoiser.path
    return torch.allclose(path.mean(t), mean, atol=1e-3) and torch.allclose(path.scale(t), scale, rtol=1e-2, atol=1e-3)
