"""Laws that data come from."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal, norm

from sbbridge.data import (
    AbstractDistribution,
    DataError,
    Gaussian,
    GaussianMixture,
    StandardNormal,
    TensorData,
    Toy2D,
    digits,
    eight_gaussians,
)
from sbbridge.rng import Stream

N = 40_000


def test_gaussian_samples_have_its_moments():
    """5 standard errors in 5 entries: a false alarm below 1e-5."""
    law = Gaussian([1.0, -2.0], [[2.0, 0.6], [0.6, 0.5]])
    x = law.sample(N, seed=1).double()
    cov = law.covariance
    assert ((x.mean(0) - law.mean).abs() < 5 * (cov.diag() / N).sqrt()).all()
    assert ((torch.cov(x.mT) - cov).abs() < 5 * ((cov.diag().outer(cov.diag()) + cov**2) / N).sqrt()).all()


def test_a_singular_gaussian_stays_on_its_subspace():
    x = Gaussian([0.0, 3.0], [[1.0, 0.0], [0.0, 0.0]]).sample(1000)
    assert (x[:, 1] == 3).all()
    assert x[:, 0].std() > 0.9


def test_standard_normal_samples_are_standard_normal():
    assert kstest(StandardNormal((1,), scale=2.0).sample(N)[:, 0] / 2, "norm").pvalue > 1e-5
    assert StandardNormal((3, 2)).sample(5).shape == (5, 3, 2)


def test_mixture_samples_follow_the_mixture():
    law = GaussianMixture([1, 3], [[-2.0], [1.0]], [0.25, 1.0])
    cdf = lambda x: 0.25 * norm.cdf(x, -2, 0.5) + 0.75 * norm.cdf(x, 1, 1)  # noqa: E731
    assert kstest(law.sample(N)[:, 0], cdf).pvalue > 1e-5


def test_mixture_moments_and_density_are_those_of_scipys_components():
    weights, means, variances = [0.2, 0.8], np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([[0.5, 0.2], [0.1, 1.0]])
    law = GaussianMixture(weights, means, variances)
    x = np.random.default_rng(0).normal(size=(6, 2))
    density = sum(
        w * multivariate_normal(m, np.diag(v)).pdf(x) for w, m, v in zip(weights, means, variances, strict=True)
    )
    np.testing.assert_allclose(law.log_prob(torch.tensor(x)), np.log(density), rtol=1e-10)
    second = sum(w * (np.diag(v) + np.outer(m, m)) for w, m, v in zip(weights, means, variances, strict=True))
    mean = weights @ means
    np.testing.assert_allclose(law.mean, mean)
    np.testing.assert_allclose(law.covariance, second - np.outer(mean, mean), atol=1e-12)


@pytest.mark.parametrize(
    "law",
    [
        GaussianMixture([1, 2], [[0.0, 1.0], [2.0, -1.0]], [0.5, 0.3]),
        Gaussian([0.5, 1.0], [[1.0, 0.3], [0.3, 2.0]]),
        StandardNormal((2,), 1.7),
    ],
)
def test_scores_are_gradients_of_scipys_log_density(law):
    x = torch.tensor([[0.3, -0.4], [1.0, 2.0]], dtype=torch.float64)

    def log_density(point):
        if isinstance(law, GaussianMixture):
            parts = zip(law.weights, law.means, law.variances, strict=True)
            return math.log(sum(float(w) * multivariate_normal(m, np.diag(v)).pdf(point) for w, m, v in parts))
        if isinstance(law, Gaussian):
            return multivariate_normal(law.mean, law.covariance).logpdf(point)
        return multivariate_normal([0, 0], 1.7**2 * np.eye(2)).logpdf(point)

    for row, score in zip(x.numpy(), law.score(x), strict=True):
        for i in range(2):
            step = np.eye(2)[i] * 1e-5
            assert float(score[i]) == pytest.approx(
                (log_density(row + step) - log_density(row - step)) / 2e-5, abs=1e-6
            )


def test_tensor_data_draws_its_rows_equally_often():
    """Counts within 5.5 standard errors in 20 cells: a false alarm below 1e-6."""
    data = TensorData(torch.arange(20.0)[:, None])
    counts = torch.bincount(data.sample(N)[:, 0].long(), minlength=20)
    assert ((counts - N / 20).abs() < 5.5 * (N / 20 * 0.95) ** 0.5).all()
    assert data.in_order(range(18, 23))[:, 0].tolist() == [18, 19, 0, 1, 2]
    assert len(data) == 20


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 2), "n >= 1"),
        (torch.zeros(3), r"\[n, \*shape\]"),
        (torch.tensor([[0.0], [math.nan], [math.inf]]), "2 of 3 rows, first row 1"),
    ],
)
def test_unusable_tensors_are_refused_in_one_line(x, message):
    with pytest.raises(DataError, match=message):
        TensorData(x)


def test_integers_become_floats():
    assert TensorData([[1, 2], [3, 4]]).sample(3).dtype == torch.get_default_dtype()


def test_eight_gaussians_lie_on_their_circle():
    law = eight_gaussians()
    np.testing.assert_allclose(law.means.norm(dim=1), 5.0, rtol=1e-6)
    gaps = torch.cdist(law.means, law.means).sort(1).values[:, 1]
    np.testing.assert_allclose(gaps, 2 * 5 * math.sin(math.pi / 8), rtol=1e-6)
    assert float(law.covariance[0, 0]) == pytest.approx(12.5 + 0.1**0.5, rel=1e-5)


def test_the_checkerboard_fills_every_second_square():
    x = Toy2D("checkerboard").sample(N)
    assert x.abs().max() <= 4
    square = ((x + 4) / 2).floor().clamp(max=3).long()
    assert ((square.sum(1) % 2) == (square[0].sum() % 2)).all()
    counts = torch.bincount(4 * square[:, 0] + square[:, 1], minlength=16)
    filled = counts[counts > 0]
    assert len(filled) == 8
    assert ((filled - N / 8).abs() < 5.5 * (N / 8 * 7 / 8) ** 0.5).all()


def test_moons_and_swiss_roll_are_where_they_should_be():
    moons = (Toy2D("moons").sample(N) + 1) / 3
    distance = torch.minimum((moons.norm(dim=1) - 1).abs(), ((moons - torch.tensor([1.0, 0.5])).norm(dim=1) - 1).abs())
    assert float(distance.mean()) < 0.2
    roll = Toy2D("swiss_roll").sample(N) * 5
    radius, angle = roll.norm(dim=1), torch.atan2(roll[:, 1], roll[:, 0])
    off = ((radius - angle + math.pi) % (2 * math.pi)) - math.pi
    assert float(off.abs().mean()) < 0.5


def test_a_law_without_density_has_no_score():
    with pytest.raises(TypeError, match="Toy2D has no known density"):
        Toy2D("moons").score(torch.zeros(1, 2))


def test_digits_are_split_once_and_for_all():
    splits = digits()
    assert [len(part.images) for part in splits] == [898, 300, 599]
    together = torch.cat([part.images for part in splits])
    assert together.shape == (1797, 1, 8, 8)
    assert float(together.min()) == -1
    assert float(together.max()) == 1
    for part in splits:  # stratified: every class has its share
        share = torch.bincount(part.labels, minlength=10) / len(part.labels)
        assert (share - 0.1).abs().max() < 0.02
    again = digits()
    assert all(torch.equal(one.images, other.images) for one, other in zip(splits, again, strict=True))
    rows = {tuple(image.flatten().tolist()) for image in together}
    parts = [{tuple(image.flatten().tolist()) for image in part.images} for part in splits]
    assert len(rows) == sum(map(len, parts)), "no image is in two parts"


def test_draws_of_two_steps_differ():
    law: AbstractDistribution = Toy2D("moons")
    assert not torch.equal(law.draw(0, range(5), Stream(0)), law.draw(1, range(5), Stream(0)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StandardNormal((2,), 0.0), "scale"),
        (lambda: GaussianMixture([1], [0.0], [1]), "means must be"),
        (lambda: GaussianMixture([0.0], [[0.0]], [1.0]), "positive"),
        (lambda: Gaussian([0.0], [[-1.0]]), "semi-definite"),
    ],
)
def test_impossible_laws_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
