"""Where LDSB's denoiser comes from, as options; and the same denoiser as other methods and samplers see it."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias, final

import pydantic
import torch
from torch import Tensor

from sbbridge.config import Forbid
from sbbridge.methods.asbm import ASBM
from sbbridge.methods.base import Solution, Unsupported
from sbbridge.methods.flow import OTCFM, FlowMatching
from sbbridge.methods.score_matching import ScoreMatchingVP
from sbbridge.networks import MLP, FieldNetwork
from sbbridge.path import LINEAR, Denoiser
from sbbridge.path.denoiser import Timesteps
from sbbridge.sde import DDPM, AbstractLinearSDE
from sbbridge.solvers import MEMORYLESS, Dynamics, reference_path
from sbbridge.types import Field, State, Time, expand_like

DenoiserMethod: TypeAlias = Annotated[
    ScoreMatchingVP | FlowMatching | OTCFM | ASBM, pydantic.Field(discriminator="kind")
]
"""A method that leaves a denoiser."""


@final
@dataclass(frozen=True)
class TrainingOptions(Forbid):
    """The options of a denoiser's own training; see `sbbridge.Training`, whose defaults hold for the rest."""

    batch_size: int = 512
    learning_rate: float = 2e-3
    ema_decay: float = 0.995
    budget: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"


@final
@dataclass(frozen=True)
class TrainedDenoiser(Forbid):
    """Trained here, once for a data set, a reference and a seed, and shared by every path that asks for it."""

    method: DenoiserMethod = ScoreMatchingVP()
    network: FieldNetwork = MLP()
    training: TrainingOptions = TrainingOptions()
    kind: Literal["trained"] = field(default="trained", kw_only=True, repr=False)


@final
@dataclass(frozen=True)
class ExactDenoiser(Forbid):
    """E[x0 | x_t] of data whose law is known (Gaussians and their mixtures): the null of every fit.

    Attributes:
        family: vp: noise prediction on the reference's own path; flow: velocity along straight lines.
    """

    family: Literal["vp", "flow"] = "vp"
    kind: Literal["exact"] = field(default="exact", kw_only=True, repr=False)


@final
@dataclass(frozen=True)
class PublishedDenoiser(Forbid):
    """A diffusers folder or a DDPM checkpoint that the user has: the folder or file that SB_DENOISER names.

    Attributes:
        sha256: of its weights, so that results belong to them; None takes what is there, and a study then writes down
            what that is.
        prediction: what the network says, where the files do not tell; reversed_velocity is x0 − eps, its time running
            from noise at 0 to data at 1.
    """

    sha256: str | None = None
    prediction: Literal["noise", "velocity", "reversed_velocity", "image"] | None = None
    kind: Literal["published"] = field(default="published", kw_only=True, repr=False)


DenoiserConfig: TypeAlias = Annotated[
    TrainedDenoiser | ExactDenoiser | PublishedDenoiser, pydantic.Field(discriminator="kind")
]
"""Any denoiser, as a configuration `{"kind": trained | exact | published, …}`."""


def denoiser_of(solution: Solution, digest: str = "") -> Denoiser:
    """What a trained flow or score knows, as LDSB takes it.

    Raises:
        Unsupported: the method has neither a velocity nor the score of a memoryless reference.
    """
    dynamics = solution.dynamics
    if dynamics.velocity is not None:
        timesteps = Timesteps("velocity", chain=False)
        return Denoiser(LINEAR, "velocity", dynamics.velocity, digest, timesteps=timesteps, own_prior=True)
    reference, score = dynamics.reference, dynamics.backward_score
    if score is None or not reference.is_memoryless(MEMORYLESS):
        raise Unsupported(f"method {solution.method} leaves no denoiser: neither a velocity nor a memoryless score")

    def noise(t: Time, x: State) -> State:
        return -expand_like(reference.variance(0.0, t).sqrt(), x) * score(t, x)

    chain = reference.num_steps if isinstance(reference, DDPM) else None
    timesteps = Timesteps("noise", chain is not None, chain or Timesteps.count)
    return Denoiser(reference_path(reference), "noise", noise, digest, chain, timesteps)


def dynamics_of(denoiser: Denoiser, reference: AbstractLinearSDE) -> Dynamics:
    """A denoiser as other samplers see it: a velocity, or the score along the path of its reference."""
    if denoiser.prediction == "velocity":
        return Dynamics(reference, velocity=denoiser.field)
    path = reference_path(reference)

    def score(t: Time, x: State) -> State:
        a, b = path.mean(t), path.scale(t)
        value = denoiser.field(t, x)
        if denoiser.prediction == "image":
            return (expand_like(a, x) * value - x) / expand_like(b**2, x)
        return -value / expand_like(b, x)

    return Dynamics(reference, backward_score=score)


def exact_denoiser(weights: Tensor, means: Tensor, covariances: Tensor, family: str,
                   reference: AbstractLinearSDE) -> Denoiser:  # fmt: skip
    """The posterior means of a mixture of Gaussians sum_j w_j N(m_j, S_j), `[J]`, `[J, d]`, `[J, d, d]`.

    With responsibilities r_j of x = a x0 + b eps and u_j = (a^2 S_j + b^2)^{-1} (x − a m_j):
    E[eps | x] = sum_j r_j(x) b u_j, E[x0 | x] = sum_j r_j(x) (m_j + a S_j u_j).
    """
    path = LINEAR if family == "flow" else reference_path(reference)
    weights, means, covariances = weights.double(), means.double(), covariances.double()
    eigenvalues, vectors = torch.linalg.eigh(covariances)

    def posterior(t: Time, x: State) -> tuple[State, State]:
        """(E[x0], E[eps]) given x_t = x."""
        w, m, values, v = (part.to(x.device) for part in (weights, means, eigenvalues, vectors))
        t = t.double().to(x.device).reshape(-1, 1, 1)
        a, b = path.mean(t), path.scale(t)
        away = x.flatten(1).double()[:, None] - a * m  # [n, J, d]
        rotated = torch.einsum("njd,jde->nje", away, v)
        variance = a**2 * values + b**2
        log = w.log() - 0.5 * (rotated**2 / variance + variance.log()).sum(2)
        share = torch.softmax(log, 1)[..., None]
        image = m + torch.einsum("nje,jde->njd", a * values * rotated / variance, v)
        eps = torch.einsum("nje,jde->njd", b * rotated / variance, v)
        return (share * image).sum(1).view_as(x).to(x), (share * eps).sum(1).view_as(x).to(x)

    def noise(t: Time, x: State) -> State:
        return posterior(t, x)[1]

    if family != "flow":
        chain = reference.num_steps if isinstance(reference, DDPM) else None
        return Denoiser(path, "noise", noise, f"exact {family}", chain)

    def velocity(t: Time, x: State) -> State:
        image, eps = posterior(t, x)
        return eps - image

    field: Field = velocity
    return Denoiser(path, "velocity", field, f"exact {family}")
