"""Samples in, numbers out."""

from sbbridge.metrics.features import MissingWeights, digits_features, inception_features
from sbbridge.metrics.frechet import FeatureMoments, FrechetJudge
from sbbridge.metrics.gaussian import (
    bures_wasserstein_uvp,
    conditional_bures_wasserstein_uvp,
    cross_covariance,
    cross_covariance_noise,
    frechet_distance,
    relative_error,
)
from sbbridge.metrics.path import straightness, trajectory_variance, transport_cost
from sbbridge.metrics.transport import wasserstein2

__all__ = [
    "FeatureMoments", "FrechetJudge", "MissingWeights", "bures_wasserstein_uvp", "conditional_bures_wasserstein_uvp",
    "cross_covariance", "cross_covariance_noise", "digits_features", "frechet_distance", "inception_features",
    "relative_error", "straightness", "trajectory_variance", "transport_cost", "wasserstein2",
]  # fmt: skip
