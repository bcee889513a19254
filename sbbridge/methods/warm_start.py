"""The Gaussian bridge nearest to a problem, for warm starts."""

from typing import final

import torch

from sbbridge.data import AbstractDistribution, Gaussian, TensorData
from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.types import State, Time

MOMENT_SAMPLES = 100_000


@final
class GaussianApproximation:
    """The closed-form bridge between Gaussians with the ends' means and covariances, on states of any shape."""

    def __init__(self, bridge: GaussianBridge) -> None:
        self.bridge = bridge

    def control(self, t: Time, x: State) -> State:
        """∇log phi_t."""
        return self.bridge.control(t, x.flatten(1)).view_as(x)

    def backward_score(self, t: Time, x: State) -> State:
        """∇log phihat_t."""
        return self.bridge.backward_score(t, x.flatten(1)).view_as(x)

    def corrector(self, x: State) -> State:
        """∇log phihat_1."""
        return self.bridge.corrector(x.flatten(1)).view_as(x)


def gaussian_approximation(problem: BridgeProblem) -> GaussianApproximation:
    """Moments are exact where the end is a Gaussian, those of the data where it is a tensor, of 100,000 draws else."""
    (mean0, cov0), (mean1, cov1) = _moments(problem.data), _moments(problem.prior)
    return GaussianApproximation(GaussianBridge(mean0, cov0, mean1, cov1, problem.reference))


def _moments(end: AbstractDistribution) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(end, Gaussian):
        return end.mean, end.covariance
    samples = end.x if isinstance(end, TensorData) else end.sample(MOMENT_SAMPLES)
    x = samples.flatten(1).double()
    return x.mean(0), torch.cov(x.mT).reshape(x.shape[1], x.shape[1])
