"""Samples in, numbers out; where samples are not finite, NaN, each of these (`finite`)."""

from sbbridge.metrics.coverage import (
    VarietyJudge,
    checkerboard_square,
    class_shares,
    component,
    density_coverage,
    precision_recall,
)
from sbbridge.metrics.features import (
    ClassifierFeatures,
    MissingWeights,
    digits_features,
    inception_features,
    patches_features,
    require_inception,
)
from sbbridge.metrics.finite import nan_unless_finite, not_finite_share
from sbbridge.metrics.frechet import FeatureMoments, FrechetJudge
from sbbridge.metrics.gaussian import (
    bures_wasserstein_uvp,
    conditional_bures_wasserstein_uvp,
    cross_covariance,
    cross_covariance_noise,
    frechet_distance,
    relative_error,
)
from sbbridge.metrics.kernel import inception_kernel_distance, kernel_distance
from sbbridge.metrics.path import (
    accumulated_drift,
    accumulated_length,
    straightness,
    straightness_per_path,
    trajectory_variance,
    trajectory_variance_per_path,
    transport_cost,
)
from sbbridge.metrics.transport import wasserstein2

__all__ = [
    "ClassifierFeatures", "FeatureMoments", "FrechetJudge", "MissingWeights", "VarietyJudge", "accumulated_drift",
    "accumulated_length", "bures_wasserstein_uvp", "checkerboard_square", "class_shares", "component",
    "conditional_bures_wasserstein_uvp", "cross_covariance", "cross_covariance_noise", "density_coverage",
    "digits_features", "frechet_distance", "inception_features", "inception_kernel_distance", "kernel_distance",
    "nan_unless_finite", "not_finite_share",
    "patches_features", "precision_recall", "relative_error", "require_inception", "straightness",
    "straightness_per_path",
    "trajectory_variance", "trajectory_variance_per_path", "transport_cost", "wasserstein2",
]  # fmt: skip
