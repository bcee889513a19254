"""A bridge to a mixture whose answer is known: the entropic-OT benchmark's construction."""

from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from sbbridge.arguments import states, whole
from sbbridge.data import AbstractDistribution, GaussianMixture, StandardNormal
from sbbridge.problems.problem import BridgeProblem
from sbbridge.rng import Stream
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import Pair, State, Time, as_time


class ConditionalMoments(NamedTuple):
    """Mean `[n, d]` and covariance `[n, d, d]` of x0 given each x1."""

    mean: Tensor
    covariance: Tensor


@final
class MixtureBridge(BridgeProblem):
    """t = 1: N(0, I); t = 0: the marginal built from the potential phihat_0 = Σ_k w_k N(mean_k, diag(variance_k)).

    The exact plan is π(x0 | x1) ∝ phihat_0(x0) N(x1; m x0, tau^2 I), a mixture again, and ∇log phihat_t is that of
    Σ_k w_k N(kappa(0, t) mean_k, kappa(0, t)^2 variance_k + V(0, t)). With Brownian motion, sigma^2 is the benchmark's
    epsilon (Gushchin et al. 2023, arXiv 2306.10161).

    Args:
        weights: `[k]`; means: `[k, d]`; variances: `[k, d]` or `[k]`.
        reference: any linear reference process.
    """

    def __init__(self, weights: Any, means: Any, variances: Any, reference: AbstractLinearSDE) -> None:
        self.potential = GaussianMixture(weights, means, variances)
        prior = StandardNormal(self.potential.shape)
        super().__init__(_MixtureEnd(self.potential, prior, reference), prior, reference)

    def backward_score(self, t: Time, x: State) -> State:
        """∇log phihat_t(x), exact."""
        t = as_time(t).to(x.device).reshape(-1, 1, 1)
        alpha, v = self.reference.mean_factor(0.0, t), self.reference.variance(0.0, t)
        means = alpha * self.potential.means.to(x.device)
        variances = alpha**2 * self.potential.variances.to(x.device) + v
        x64 = x.double()[:, None]
        square = ((x64 - means) ** 2 / variances + variances.log()).sum(-1)
        responsibility = torch.softmax(self.potential.weights.to(x.device).log() - 0.5 * square, dim=1)
        return (responsibility[:, :, None] * (means - x64) / variances).sum(1).to(x)

    def conditional_moments(self, x1: State) -> ConditionalMoments:
        """Mean and covariance of x0 given x1, exact."""
        responsibility, means, variances = _posterior(self.potential, self.reference, x1)
        mean = (responsibility[:, :, None] * means).sum(1)
        centred = means - mean[:, None]
        within = torch.diag_embed((responsibility[:, :, None] * variances).sum(1))
        between = torch.einsum("nk,nki,nkj->nij", responsibility, centred, centred)
        return ConditionalMoments(mean, within + between)

    def couple(self, n: int, seed: int = 0) -> Pair:
        """n pairs of the exact plan."""
        n, seed = whole("n", n), whole("seed", seed, None)
        stream = Stream(seed, ("couple",))
        x1 = self.prior.draw(0, range(n), stream.child("x1"))
        return Pair(_draw_posterior(self.potential, self.reference, x1, 0, range(n), stream), x1)

    def sample_conditional(self, x1: State, seed: int = 0) -> State:
        """One x0 for every x1, from the exact plan."""
        x1, seed = states("x1", x1, self.shape, str(getattr(x1, "device", "cpu"))), whole("seed", seed, None)
        return _draw_posterior(
            self.potential, self.reference, x1, 0, range(len(x1)), Stream(seed, ("conditional",), str(x1.device))
        )


@final
class _MixtureEnd(AbstractDistribution):
    """The marginal of the exact plan at t = 0."""

    def __init__(self, potential: GaussianMixture, prior: StandardNormal, reference: AbstractLinearSDE) -> None:
        self._potential, self._prior, self._reference = potential, prior, reference

    @property
    def shape(self) -> tuple[int, ...]:
        return self._potential.shape

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        x1 = self._prior.draw(step, rows, stream.child("x1"))
        return _draw_posterior(self._potential, self._reference, x1, step, rows, stream)


def _posterior(potential: GaussianMixture, reference: AbstractLinearSDE,
               x1: State) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Responsibilities `[n, k]`, means `[n, k, d]` and variances `[k, d]` of x0 given x1."""
    m, tau2 = reference.retained_memory, reference.terminal_variance
    end = GaussianMixture(potential.weights, m * potential.means, m * m * potential.variances + tau2)
    responsibility = torch.softmax(end.log_components(x1), dim=1)
    means, variances = potential.means.to(x1.device), potential.variances.to(x1.device)
    precision = 1 / variances + m * m / tau2
    return responsibility, (means / variances + m * x1.double()[:, None] / tau2) / precision, 1 / precision


def _draw_posterior(potential: GaussianMixture, reference: AbstractLinearSDE, x1: State, step: int, rows: range,
                    stream: Stream) -> State:  # fmt: skip
    responsibility, means, variances = _posterior(potential, reference, x1)
    u = stream.child("component").uniform(step, rows)
    k = (responsibility.cumsum(1)[:, :-1] < u[:, None]).sum(1)
    z = stream.child("x0").normal(step, rows, potential.shape)
    chosen = means[torch.arange(len(x1), device=x1.device), k]
    return (chosen + variances.sqrt()[k] * z.double()).to(z)
