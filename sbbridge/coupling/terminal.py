"""Does the forward process reach the prior? The terminal test, and an affine repair."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sbbridge.types import Pair, State


@dataclass(frozen=True)
class TerminalTest:
    """How far the law of x1 is from the prior, by the ASBM paper's stopping test and the full covariance.

    Attributes:
        top_eigenvalue, top_eigenvalue_prior: of the covariance of x1, and of as many prior samples.
        norm_mean_error, norm_variance_error: relative errors of mean and variance of |x1|^2.
        covariance_error: |Cov(x1) − Cov(prior)| / |Cov(prior)|, Frobenius.
        spectrum: eigenvalues of the covariance of x1, falling.
        spectrum_prior: those of the prior samples.
    """

    top_eigenvalue: float
    top_eigenvalue_prior: float
    norm_mean_error: float
    norm_variance_error: float
    covariance_error: float
    spectrum: Tensor
    spectrum_prior: Tensor

    @property
    def passed(self) -> bool:
        """The paper's criterion: top eigenvalue not above the prior's, both norm errors below 8 %."""
        return (
            self.top_eigenvalue <= self.top_eigenvalue_prior
            and max(self.norm_mean_error, self.norm_variance_error) < 0.08
        )


def terminal_test(x1: State, prior: State) -> TerminalTest:
    """Compares simulated end points with as many prior samples."""
    x, y = x1.flatten(1).double(), prior.flatten(1).double()
    covariance, covariance_prior = torch.cov(x.mT).reshape(x.shape[1], -1), torch.cov(y.mT).reshape(x.shape[1], -1)
    spectrum = torch.linalg.eigvalsh(covariance).flip(0)
    spectrum_prior = torch.linalg.eigvalsh(covariance_prior).flip(0)
    norms, norms_prior = x.square().sum(1), y.square().sum(1)
    return TerminalTest(
        top_eigenvalue=float(spectrum[0]),
        top_eigenvalue_prior=float(spectrum_prior[0]),
        norm_mean_error=float((norms.mean() / norms_prior.mean() - 1).abs()),
        norm_variance_error=float((norms.var() / norms_prior.var() - 1).abs()),
        covariance_error=float((covariance - covariance_prior).norm() / covariance_prior.norm()),
        spectrum=spectrum,
        spectrum_prior=spectrum_prior,
    )


def match_moments(pair: Pair, prior: State) -> Pair:
    """Moves x1 affinely (and optimally) so that its mean and covariance are those of the prior samples.

    x1 -> mean_p + A (x1 − mean), A = S^-½ (S^½ S_p S^½)^½ S^-½, the optimal map between the two Gaussians.
    """
    x, y = pair.x1.flatten(1).double(), prior.flatten(1).double()
    covariance, wanted = torch.cov(x.mT).reshape(x.shape[1], -1), torch.cov(y.mT).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=1e-12 * float(values[-1]))
    root, inverse = (vectors * values.sqrt()) @ vectors.mT, (vectors / values.sqrt()) @ vectors.mT
    inner_values, inner_vectors = torch.linalg.eigh(root @ wanted @ root)
    inner = (inner_vectors * inner_values.clamp(min=0).sqrt()) @ inner_vectors.mT
    moved = y.mean(0) + (x - x.mean(0)) @ (inverse @ inner @ inverse)
    return Pair(pair.x0, moved.to(pair.x1).view_as(pair.x1))
