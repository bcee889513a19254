"""Samples that are not finite are never a number: every judge says NaN."""

import math

import numpy as np
import pytest
import torch

from sbbridge.data import GaussianMixture, eight_gaussians
from sbbridge.metrics import (
    FeatureMoments,
    FrechetJudge,
    VarietyJudge,
    bures_wasserstein_uvp,
    checkerboard_square,
    class_shares,
    component,
    conditional_bures_wasserstein_uvp,
    density_coverage,
    digits_features,
    frechet_distance,
    inception_kernel_distance,
    kernel_distance,
    not_finite_share,
    precision_recall,
    relative_error,
    straightness,
    straightness_per_path,
    trajectory_variance,
    transport_cost,
    wasserstein2,
)
from sbbridge.metrics.features import to_bytes_range

BAD = [math.nan, math.inf, -math.inf]
bad = pytest.mark.parametrize("value", BAD)
TIMES = torch.linspace(1, 0, 5)


def points(value: float | None = None, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """40 points on the plane, one coordinate of one of them replaced."""
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    if value is not None:
        x[7, 1] = value
    return x.to(dtype)


def covariance(x: torch.Tensor) -> torch.Tensor:
    return torch.cov(x.mT)


def trajectory(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([points() * (1 - t) + t * (x + 2) for t in TIMES])


MEASURES = {
    "wasserstein2": lambda x: wasserstein2(x, points() + 1),
    "wasserstein2 of the other": lambda x: wasserstein2(points() + 1, x),
    "frechet_distance": lambda x: frechet_distance(x.mean(0), covariance(x), torch.zeros(2), torch.eye(2)),
    "moments": lambda x: FeatureMoments.of(x.numpy()).distance(FeatureMoments.of(points().numpy() + 1)),
    "uvp": lambda x: bures_wasserstein_uvp(x.mean(0), covariance(x), torch.zeros(2), torch.eye(2)),
    "conditional uvp": lambda x: conditional_bures_wasserstein_uvp(
        x.view(4, 10, 2), torch.zeros(4, 2), torch.eye(2).expand(4, 2, 2), torch.eye(2)
    ),
    "relative_error": lambda x: relative_error(covariance(x), torch.eye(2)),
    "transport_cost": lambda x: transport_cost(x, points() + 1),
    "straightness": lambda x: straightness(trajectory(x), TIMES),
    "straightness per path": lambda x: float(straightness_per_path(trajectory(x), TIMES).mean()),
    "trajectory_variance": lambda x: trajectory_variance(trajectory(x), TIMES),
    "precision and recall": lambda x: precision_recall(points() + 1, x),
    "of real ones": lambda x: precision_recall(x, points() + 1),
    "density and coverage": lambda x: density_coverage(points() + 1, x),
    "kernel distance": lambda x: kernel_distance(points() + 1, x, subsets=2, subset_size=2),
    "inception's": lambda x: inception_kernel_distance(points() + 1, x),
    "variety": lambda x: list(VarietyJudge(points())(x).values()),
    "classes": lambda x: list(VarietyJudge(points(), lambda y: (y[:, 0] > 0).long(), 2)(x).values()),
    "a judge": lambda x: FrechetJudge(points(), lambda y: y.nan_to_num().clamp(-1, 1).double().numpy(), "own").distance(
        x.repeat(3, 1)
    )[0],
}  # fmt: skip


@bad
@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_says_nan(name, value):
    assert np.isnan(MEASURES[name](points(value))).all()


@pytest.mark.parametrize("name", MEASURES)
def test_and_a_number_of_finite_samples(name):
    assert np.isfinite(MEASURES[name](points())).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ["wasserstein2", "precision and recall", "transport_cost", "classes"])
def test_half_precision_that_overflowed_is_not_finite(name, dtype):
    """1e39 is infinite in each of these types."""
    x = points(1e39, dtype)
    assert np.isnan(MEASURES[name](x)).all()
    assert not_finite_share(x) == 1 / 40


def test_differences_of_half_precision_do_not_overflow():
    x, y = (torch.full((3, 2), side * 4e4, dtype=torch.float16) for side in (-1, 1))
    assert transport_cost(x, y) == pytest.approx(2 * 8e4**2, rel=1e-3)


def test_squares_that_overflow_are_no_distance():
    assert math.isnan(wasserstein2(torch.full((3, 1), 1e200, dtype=torch.float64), torch.zeros(3, 1)))


# -- images


def images(value: float | None = None, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    if value is not None:
        x[7, 0, 3, 3] = value
    return x.to(dtype)


@bad
def test_the_features_of_an_image_that_is_not_finite_are_nan(value):
    found, whole = digits_features()(images(value)), digits_features()(images())
    assert np.isnan(found[7]).all()
    assert np.array_equal(np.delete(found, 7, 0), np.delete(whole, 7, 0))
    assert digits_features().classify(found)[7] == -1


@bad
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_judge_of_images_makes_no_black_image_of_it(value, dtype):
    judge = FrechetJudge(images(), digits_features(), "digits-CNN")
    assert math.isnan(judge.distance(images(value, dtype))[0])
    assert math.isfinite(judge.distance(images(None, dtype))[0])
    assert math.isnan(judge.floor(images(value))[0])


@bad
def test_bytes_refuse_what_they_cannot_say(value):
    with pytest.raises(ValueError, match="1 of 60 images hold NaN or infinity"):
        to_bytes_range(images(value))


def test_weights_that_became_infinite_in_half_precision_are_not_a_measurement():
    weights = torch.nn.Linear(2, 2)
    with torch.no_grad():
        weights.weight.mul_(1e6)
    made = weights.half().float()(points().float()).detach()
    assert not_finite_share(made) > 0
    assert math.isnan(wasserstein2(made, points()))
    assert np.isnan(VarietyJudge(points())(made)["precision"])


# -- classes


@bad
def test_what_is_not_finite_is_of_no_class(value):
    x = points(value)
    assert component(eight_gaussians(), x)[7] == -1
    assert checkerboard_square(x)[7] == -1
    assert (component(GaussianMixture([1, 1], torch.eye(2), [1, 1]), points()) >= 0).all()
    assert (checkerboard_square(points()) >= 0).all()
    shares = class_shares(torch.tensor([0, 1, 1]), torch.tensor([0, 1, -1]), 2)
    assert math.isnan(shares.distance)
    assert math.isnan(shares.covered)


def test_the_share_of_rows():
    x = points(math.nan)
    x[0, 0] = x[0, 1] = math.inf
    assert not_finite_share(x) == 2 / 40
    assert not_finite_share(points()) == 0


# -- covariances of float32


def rounded(d: int, n: int, seed: int) -> torch.Tensor:
    """A singular covariance computed in float32: its smallest eigenvalue is negative."""
    rows = 30 * torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * torch.logspace(0, -3, d)
    return torch.cov(rows.mT)


def test_distances_take_the_rounding_of_float32_and_refuse_more():
    a = rounded(64, 20, 0)
    assert float(torch.linalg.eigvalsh(a.double())[0]) < 0
    zero = torch.zeros(64)
    assert abs(frechet_distance(zero, a, zero, a)) < 1e-3 * float(a.trace())
    assert frechet_distance(zero, a, zero, torch.eye(64)) > 0
    wrong = torch.diag(torch.tensor([1.0, -0.1]))
    for pair in ((wrong, torch.eye(2)), (torch.eye(2), wrong)):
        with pytest.raises(ValueError, match="positive semi-definite"):
            frechet_distance(torch.zeros(2), pair[0], torch.zeros(2), pair[1])
