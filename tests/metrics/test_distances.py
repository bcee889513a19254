"""Distances between Gaussians and samples, against closed forms."""

import numpy as np
import pytest
import scipy
import torch

from sbbridge.metrics import (
    bures_wasserstein_uvp,
    conditional_bures_wasserstein_uvp,
    cross_covariance,
    cross_covariance_noise,
    frechet_distance,
    relative_error,
    wasserstein2,
)
from sbbridge.problems import mixture_pair
from sbbridge.sde import BrownianMotion


def random_covariance(seed: int, d: int, rank: int | None = None) -> torch.Tensor:
    rows = torch.from_numpy(np.random.default_rng(seed).normal(size=(rank or 2 * d, d)))
    return rows.mT @ rows / len(rows)


def commuting(seed: int, d: int, *spectra: list[float]) -> list[torch.Tensor]:
    """Covariances with these eigenvalues along the same random axes."""
    axes, _ = torch.linalg.qr(torch.from_numpy(np.random.default_rng(seed).normal(size=(d, d))))
    return [axes @ torch.diag(torch.tensor(s, dtype=torch.float64)) @ axes.mT for s in spectra]


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]),
        ([4.0, 1.0, 0.25], [1.0, 9.0, 16.0]),
        ([4.0, 1.0, 0.0], [1.0, 9.0, 0.0]),  # singular, along the same direction
        ([4.0, 0.0, 0.0], [0.0, 9.0, 1.0]),  # singular, in complementary directions
        ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0]),  # a point
    ],
)
def test_frechet_distance_of_commuting_covariances(a, b):
    first, second = commuting(1, 3, a, b)
    means = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 1.0, 0.5])
    wanted = 10.0 + float(np.square(np.sqrt(a) - np.sqrt(b)).sum())
    # where a covariance is singular, the roots of rounding errors of 1e-15 are what the sum is off by
    assert frechet_distance(means[0], first, means[1], second) == pytest.approx(wanted, abs=1e-6)
    assert frechet_distance(means[1], second, means[0], first) == pytest.approx(wanted, abs=1e-6)


def test_frechet_distance_is_one_dimensional_w2_squared():
    one = torch.eye(1, dtype=torch.float64)
    assert frechet_distance(3 * one[0], 4 * one, one[0], 25 * one) == pytest.approx(4 + 9)


@pytest.mark.parametrize("rank", [None, 3])
def test_frechet_distance_agrees_with_a_matrix_square_root(rank):
    """tr (A B)^½ by scipy's Schur form, for covariances that do not commute; singular ones too."""
    a, b = random_covariance(2, 6, rank), random_covariance(3, 6)
    mean = torch.zeros(6)
    root = scipy.linalg.sqrtm((a @ b + 1e-15 * torch.eye(6)).numpy())
    wanted = float(a.trace() + b.trace()) - 2 * float(np.trace(root).real)
    assert frechet_distance(mean, a, mean, b) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")
def test_frechet_distance_agrees_with_clean_fid():
    if tuple(int(part) for part in scipy.__version__.split(".")[:2]) >= (1, 18):
        pytest.skip("clean-fid asks scipy.linalg.sqrtm for an argument that scipy 1.18 has dropped")
    from cleanfid.fid import frechet_distance as theirs

    generator = np.random.default_rng(4)
    one, other = generator.normal(size=(300, 16)), 1.2 * generator.normal(size=(300, 16)) + 0.3
    moments = [(x.mean(0), np.cov(x, rowvar=False)) for x in (one, other)]
    mine = frechet_distance(*(torch.from_numpy(np.asarray(part)) for pair in moments for part in pair))
    assert mine == pytest.approx(float(theirs(*moments[0], *moments[1])), rel=1e-6)


def test_frechet_distance_is_invariant_under_rotation_and_shift():
    a, b = random_covariance(5, 4), random_covariance(6, 4)
    axes = torch.linalg.qr(torch.from_numpy(np.random.default_rng(7).normal(size=(4, 4)))).Q
    shift, mean = torch.ones(4, dtype=torch.float64), torch.arange(4, dtype=torch.float64)
    plain = frechet_distance(mean, a, 0 * mean, b)
    turned = frechet_distance(axes @ mean + shift, axes @ a @ axes.mT, shift, axes @ b @ axes.mT)
    assert turned == pytest.approx(plain, rel=1e-9)


def test_uvp_of_a_scaled_truth():
    """N(0, s² C) against N(0, C): 100 (s − 1)² tr C / tr C."""
    c = random_covariance(8, 5)
    assert bures_wasserstein_uvp(torch.zeros(5), 1.21 * c, torch.zeros(5), c) == pytest.approx(1.0)
    assert bures_wasserstein_uvp(torch.zeros(5), c, torch.zeros(5), c) == pytest.approx(0.0, abs=1e-9)


@pytest.fixture(scope="module")
def pair():
    """A mixture with its exact plan: problem, conditions, conditional moments, covariance of the end."""
    problem = mixture_pair(2, BrownianMotion(sigma=1.0))
    x1 = problem.prior.sample(60, seed=1)
    end = torch.cov(problem.data.sample(50_000, seed=5).double().mT)
    return problem, x1, problem.conditional_moments(x1), end


class TestConditionalUVP:
    def value(self, drawn, pair):
        _, _, moments, end = pair
        return conditional_bures_wasserstein_uvp(drawn, moments.mean, moments.covariance, end)

    @pytest.mark.parametrize("n", [50, 800])
    def test_exact_draws_stand_at_the_floor_of_their_sample_size(self, pair, n):
        """To leading order E|mean error|² = tr C / n, and the covariance's share is of the same order."""
        problem, x1, moments, end = pair
        drawn = problem.sample_conditional(x1.repeat_interleave(n, dim=0), seed=2).view(len(x1), n, 2)
        trace = float(moments.covariance.diagonal(dim1=1, dim2=2).sum(1).mean())
        floor = 100 * trace / n / float(end.trace())
        assert 0.8 * floor < self.value(drawn, pair) < 3 * floor

    def test_the_independent_plan_is_far(self, pair):
        problem, x1, _, _ = pair
        n = 800
        exact = problem.sample_conditional(x1.repeat_interleave(n, dim=0), seed=2).view(len(x1), n, 2)
        independent = problem.data.sample(n * len(x1), seed=3).view(len(x1), n, 2)
        assert self.value(independent, pair) > 20 * self.value(exact, pair)

    def test_the_right_marginal_with_permuted_conditions_is_far(self, pair):
        problem, x1, _, _ = pair
        drawn = problem.sample_conditional(x1.repeat_interleave(800, dim=0), seed=2).view(len(x1), 800, 2)
        assert self.value(drawn.roll(1, 0), pair) > 10 * self.value(drawn, pair)

    def test_a_known_shift_gives_its_share_of_the_variance(self, pair):
        """Draws moved by δ add |δ|², exactly, but for their own cross term."""
        problem, x1, _, end = pair
        drawn = problem.sample_conditional(x1.repeat_interleave(4000, dim=0), seed=2).view(len(x1), 4000, 2)
        moved = self.value(drawn + torch.tensor([0.6, -0.8]), pair)
        assert moved - self.value(drawn, pair) == pytest.approx(100 / float(end.trace()), rel=0.05)


def test_relative_error():
    truth = torch.diag(torch.tensor([3.0, 4.0]))
    assert relative_error(truth, truth) == 0
    assert relative_error(2 * truth, truth) == pytest.approx(1)
    assert relative_error(truth + torch.tensor([[0.0, 5.0], [0.0, 0.0]]), truth) == pytest.approx(1)


def test_cross_covariance_and_its_noise():
    """Cov(x, A x + e) = S Aᵀ; the stated noise is what independent repetitions scatter by."""
    generator = torch.Generator().manual_seed(0)
    a = torch.tensor([[1.0, 0.5], [0.0, -2.0]], dtype=torch.float64)
    truth, n, errors = a.mT, 2000, []
    for _ in range(100):
        x0, noise = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
        errors.append(relative_error(cross_covariance(x0 + 7, x0 @ a.mT + noise - 3), truth))
    cov1 = a @ a.mT + torch.eye(2)
    stated = cross_covariance_noise(torch.eye(2), cov1, truth, n)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(stated, rel=0.2)


class TestWasserstein2:
    def test_on_a_line_it_is_the_distance_of_sorted_samples(self):
        x, y = torch.from_numpy(np.random.default_rng(9).normal(size=(2, 200, 1))) * torch.tensor([[[1.0]], [[3.0]]])
        wanted = (x[:, 0].sort().values - y[:, 0].sort().values).square().mean().sqrt()
        assert wasserstein2(x, y) == pytest.approx(float(wanted), rel=1e-12)

    def test_of_a_shift_in_any_shape(self):
        x = torch.from_numpy(np.random.default_rng(10).normal(size=(50, 1, 2, 2)))
        assert wasserstein2(x, x[torch.arange(49, -1, -1)] + 0.5) == pytest.approx(1.0)

    def test_of_a_set_with_itself_in_another_order(self):
        x = torch.from_numpy(np.random.default_rng(11).normal(size=(64, 3)))
        assert wasserstein2(x, x.roll(5, 0)) == pytest.approx(0, abs=1e-7)

    def test_sets_of_unequal_size_are_refused(self):
        with pytest.raises(ValueError, match="3 and 4"):
            wasserstein2(torch.zeros(3, 1), torch.zeros(4, 1))
