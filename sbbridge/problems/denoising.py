"""A bridge problem that comes with a trained denoiser."""

from sbbridge.data import AbstractDistribution
from sbbridge.path import Denoiser
from sbbridge.problems.problem import BridgeProblem
from sbbridge.sde import AbstractLinearSDE


class DenoisingProblem(BridgeProblem):
    """Data, prior, and a denoiser of x_t = a x0 + b eps to draw samples with in few calls.

    Attributes:
        denoiser: trained elsewhere, fixed here.
    """

    def __init__(self, data: AbstractDistribution, prior: AbstractDistribution, reference: AbstractLinearSDE,
                 denoiser: Denoiser) -> None:  # fmt: skip
        super().__init__(data, prior, reference)
        self.denoiser = denoiser
