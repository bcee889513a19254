"""A trained denoiser: a network, what it predicts, and the path that it was trained on."""

from dataclasses import dataclass
from typing import Literal, TypeAlias, final

from torch import Tensor

from sbbridge.path.gaussian import GaussianPath
from sbbridge.types import Field, State, Time, expand_like

Prediction: TypeAlias = Literal["noise", "velocity", "image"]
"""eps; eps − x0 (dx/dt of flow matching, here and everywhere from data at t = 0 to noise at t = 1); x0."""


@final
@dataclass(frozen=True)
class Timesteps:
    """How the pipelines of diffusers call a network: what its value is, and which timestep a time t is.

    Attributes:
        prediction: what its value is.
        chain: time (i + 1) / count is timestep i, else t is timestep t count.
        count: timesteps of its training.
    """

    prediction: Prediction
    chain: bool
    count: int = 1000


@final
@dataclass(frozen=True)
class Denoiser:
    """What a network knows of x_t = a x0 + b eps.

    Attributes:
        path: on which it was trained.
        prediction: what its value is.
        field: (t, x) -> its value.
        digest: of its weights and conventions; a fitted path serves this denoiser alone.
        chain: indices of a discrete schedule, whose times are (i + 1) / chain; None where t is continuous.
        timesteps: how diffusers calls the network; None where `field` turns what it says into something else.
        own_prior: eps is the problem's prior, whatever that is; elsewhere it is standard normal noise.
    """

    path: GaussianPath
    prediction: Prediction
    field: Field
    digest: str = ""
    chain: int | None = None
    timesteps: Timesteps | None = None
    own_prior: bool = False

    def require_image(self, image: Tensor) -> None:
        """Refuses a_k of nodes at which this denoiser says nothing about the image.

        Raises:
            ValueError: a is 0 somewhere, and the prediction is the noise.
        """
        if self.prediction == "noise" and (image == 0).any():
            raise ValueError("a denoiser that predicts noise knows no image where a = 0: take a grid that leads")

    def estimates(self, t: Time, x: State, image: Tensor, noise: Tensor) -> tuple[State, State]:
        """(x0hat, epshat) at x = a x0 + b eps, for any a and b: the network is told t all the same.

        eps: x0hat = (x − b epshat) / a (LDSB, Eq. 21). Velocity v = eps − x0: x0hat = (x − b v) / (a + b),
        epshat = (x + a v) / (a + b) (Eq. 22). Image: epshat = (x − a x0hat) / b.
        """
        value = self.field(t, x)
        a, b = expand_like(image, x), expand_like(noise, x)
        if self.prediction == "noise":
            return (x - b * value) / a, value
        if self.prediction == "velocity":
            return (x - b * value) / (a + b), (x + a * value) / (a + b)
        return value, (x - a * value) / b
