"""A Schrödinger bridge problem."""

from sbbridge.data import AbstractDistribution
from sbbridge.sde import AbstractLinearSDE


class BridgeProblem:
    """Find the path law nearest to the reference that starts in `data` (t = 0) and ends in `prior` (t = 1).

    Minimise KL(P || reference) over path laws P with P_0 = data and P_1 = prior.

    Raises:
        ValueError: data and prior have different shapes.
    """

    def __init__(self, data: AbstractDistribution, prior: AbstractDistribution, reference: AbstractLinearSDE) -> None:
        if data.shape != prior.shape:
            raise ValueError(f"data has shape {data.shape} and prior {prior.shape}; they must agree")
        self.data, self.prior, self.reference = data, prior, reference

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return self.data.shape
