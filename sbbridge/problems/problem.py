"""A Schrödinger bridge problem."""

from sbbridge.arguments import instance
from sbbridge.data import AbstractDistribution
from sbbridge.problems.noise import NoiseCheck
from sbbridge.sde import AbstractLinearSDE


class BridgeProblem:
    """Find the path law nearest to the reference that starts in `data` (t = 0) and ends in `prior` (t = 1).

    Minimise KL(P || reference) over path laws P with P_0 = data and P_1 = prior.

    Raises:
        ValueError: data and prior have different shapes, or one of the three is something else.
    """

    def __init__(self, data: AbstractDistribution, prior: AbstractDistribution, reference: AbstractLinearSDE) -> None:
        law = "a distribution such as TensorData(x) or StandardNormal(shape)"
        instance("data", data, AbstractDistribution, law)
        instance("prior", prior, AbstractDistribution, law)
        instance("reference", reference, AbstractLinearSDE, "a reference process such as VPSDE()")
        if tuple(data.shape) != tuple(prior.shape):
            raise ValueError(f"data has shape {data.shape} and prior {prior.shape}; they must agree")
        self.data, self.prior, self.reference = data, prior, reference
        self._noise = NoiseCheck()

    def require_noise(self, who: str, scale: float | None = None, memory: float | None = None) -> None:
        """Refuses a prior that is not where noised data end: N(0, scale^2 I), with what they still remember.

        For what starts from noise, whatever it was trained on: a score of noised data, a denoiser. Bridges need it not:
        their prior is what they are told.

        Args:
            who: needs it.
            scale: of the noise, the reference's at t = 1 unless said otherwise.
            memory: the factor of the data there, the reference's unless said otherwise.

        Raises:
            ValueError: saying what to pass.
        """
        scale = self.reference.terminal_variance**0.5 if scale is None else scale
        memory = self.reference.retained_memory if memory is None else memory
        self._noise.require(who, self.data, self.prior, scale, memory)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one state."""
        return tuple(self.data.shape)
