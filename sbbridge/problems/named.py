"""Problems that studies and benchmarks share, fixed once."""

import math

import torch

from sbbridge.problems.gaussian import GaussianBridge
from sbbridge.problems.mixture import MixtureBridge
from sbbridge.rng import Stream
from sbbridge.sde import AbstractLinearSDE


def gaussian64(reference: AbstractLinearSDE, prior_scale: float = 1.0) -> GaussianBridge:
    """d = 64, eigenvalues falling as a power of their index from 200 to 1e-2 in a fixed random basis.

    The prior is N(0, prior_scale^2 I). A spectrum like that of natural images; every quantity of the bridge is exact
    along each direction.
    """
    index = torch.arange(1, 65, dtype=torch.float64)
    spectrum = 200.0 * index ** (-math.log(2e4) / math.log(64))
    noise = Stream(0, ("gaussian64",)).normal(0, range(64), (64,)).double()
    basis, _ = torch.linalg.qr(noise)
    covariance = basis @ torch.diag(spectrum) @ basis.mT
    mean, prior = torch.zeros(64), prior_scale**2 * torch.eye(64)
    return GaussianBridge(mean, (covariance + covariance.mT) / 2, mean, prior, reference)


def mixture_pair(dimension: int, reference: AbstractLinearSDE, components: int = 5) -> MixtureBridge:
    """Our mixture pair (seed 0): centres on a sphere of radius 5, variances uniform in [0.5, 2], equal weights.

    The entropic-OT benchmark's construction with our own numbers: scores do not compare with published ones.
    """
    stream = Stream(0, ("mixture", str(dimension)))
    centres = stream.normal(0, range(components), (dimension,)).double()
    variances = torch.stack([0.5 + 1.5 * stream.uniform(1 + i, range(components)) for i in range(dimension)], dim=1)
    return MixtureBridge([1.0] * components, 5 * centres / centres.norm(dim=1, keepdim=True), variances, reference)
