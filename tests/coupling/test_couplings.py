"""Which ends are paired: marginals, optimality, addresses, moments."""

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp, kstest

from sbbridge.coupling import (
    IndependentCoupling,
    MinibatchOTCoupling,
    ReferenceCoupling,
    SimulatedCoupling,
    Simulation,
    Workers,
    match_moments,
    terminal_test,
)
from sbbridge.data import Gaussian, GaussianMixture, StandardNormal
from sbbridge.problems import GaussianBridge
from sbbridge.rng import BLOCK, Stream
from sbbridge.sde import VPSDE, BrownianMotion
from sbbridge.solvers import Dynamics
from sbbridge.types import Pair
from tests.oracles import moments

STREAM = Stream(3, ("pairs",))


def independent(d=2):
    return IndependentCoupling(GaussianMixture([1, 1], [[-2.0] * d, [1.0] * d], [0.3, 0.6]), StandardNormal((d,)))


def test_independent_pairs_have_their_marginals_and_no_correlation():
    """KS at 1e-5 and 5 standard errors."""
    n, coupling = 20_000, independent(1)
    pair = coupling.draw(0, range(n), STREAM)
    other = coupling.data.sample(n, seed=9)
    assert ks_2samp(pair.x0[:, 0], other[:, 0]).pvalue > 1e-5
    assert kstest(pair.x1[:, 0], "norm").pvalue > 1e-5
    assert abs(np.corrcoef(pair.x0[:, 0], pair.x1[:, 0])[0, 1]) < 5 / n**0.5


def test_reference_pairs_are_the_end_points_of_the_uncontrolled_process():
    """x1 given x0 is N(m x0, tau^2): standardised residuals, KS at 1e-5."""
    reference, n = VPSDE(beta_max=2.0), 20_000
    pair = ReferenceCoupling(Gaussian(0.7, 2.0), reference).draw(0, range(n), STREAM)
    m, tau2 = moments(reference, 0.0, 1.0)
    residual = ((pair.x1 - m * pair.x0) / tau2**0.5)[:, 0].double().numpy()
    assert kstest(residual, "norm").pvalue > 1e-5
    assert abs(np.corrcoef(residual, pair.x0[:, 0])[0, 1]) < 5 / n**0.5


def cost(pair, m=1.0):
    return float((m * pair.x0 - pair.x1).square().sum())


@pytest.mark.parametrize("m", [1.0, 0.36])
def test_minibatch_transport_lowers_the_cost_and_keeps_both_marginals_of_every_block(m):
    apart, together = independent(), MinibatchOTCoupling(independent())
    rows = range(2 * BLOCK)
    before, after = apart.draw(0, rows, STREAM), together.draw(0, rows, STREAM)
    assert torch.equal(after.x0, before.x0)
    for block in (slice(0, BLOCK), slice(BLOCK, 2 * BLOCK)):
        assert sorted(map(tuple, after.x1[block].tolist())) == sorted(map(tuple, before.x1[block].tolist()))
        assert cost(Pair(after.x0[block], after.x1[block]), m) < 0.7 * cost(Pair(before.x0[block], before.x1[block]), m)


def test_minibatch_transport_in_one_dimension_is_the_sorted_pairing():
    pair = MinibatchOTCoupling(independent(1)).draw(0, range(BLOCK), STREAM)
    order = pair.x0[:, 0].argsort()
    assert (pair.x1[order, 0].diff() >= 0).all()


def test_minibatch_transport_cannot_be_improved_by_any_exchange_of_two():
    pair = MinibatchOTCoupling(independent()).draw(0, range(BLOCK), STREAM)
    x, y = 0.7 * pair.x0.double(), pair.x1.double()
    kept = (x - y).square().sum(1)
    swapped = torch.cdist(x, y) ** 2
    assert (swapped + swapped.mT >= kept[:, None] + kept[None, :] - 1e-9).all()


@pytest.mark.parametrize("scheme", ["exponential", "exponential_heun", "euler_maruyama"])
def test_simulated_pairs_have_the_bridges_moments(scheme):
    """The exact control at 40 steps, n = 40,000: 5 standard errors, and 4 % for Euler-Maruyama's bias."""
    problem = GaussianBridge(0.7, 2.0, 0.0, 1.0, VPSDE())
    dynamics = Dynamics(problem.reference, problem.control)
    pair = SimulatedCoupling(problem.data, dynamics, Simulation(scheme, 40)).draw(0, range(40_000), STREAM)
    joint = torch.cov(torch.cat([pair.x0, pair.x1], 1).double().mT)
    bias = 0.04 if scheme == "euler_maruyama" else 0.005
    assert float(joint[0, 1]) == pytest.approx(float(problem.coupling_covariance), rel=5 * 2.5 / 200 + bias)
    assert float(joint[1, 1]) == pytest.approx(1.0, rel=5 * 1.5 / 200 + bias)


@pytest.mark.parametrize("dimension", [1, 3])
def test_matched_moments_are_exactly_those_of_the_prior_samples(dimension):
    generator = torch.Generator().manual_seed(0)
    x1 = (
        torch.randn(500, dimension, generator=generator, dtype=torch.float64)
        @ torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
        + 3
    )
    prior = torch.randn(400, dimension, generator=generator, dtype=torch.float64)
    moved = match_moments(Pair(x1, x1), prior)
    assert moved.x0 is x1
    torch.testing.assert_close(moved.x1.mean(0), prior.mean(0), atol=1e-10, rtol=0)
    torch.testing.assert_close(torch.cov(moved.x1.mT), torch.cov(prior.mT), atol=1e-9, rtol=0)


def test_matching_moments_is_the_optimal_affine_map():
    """Optimal maps between Gaussians are gradients of convex functions: the matrix is symmetric and positive."""
    generator = torch.Generator().manual_seed(1)
    mix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    x1, prior = (torch.randn(500, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    x1 = x1 @ mix
    moved = match_moments(Pair(x1, x1), prior).x1
    matrix = torch.linalg.lstsq(x1 - x1.mean(0), moved - moved.mean(0)).solution
    torch.testing.assert_close(matrix, matrix.mT, atol=1e-9, rtol=0)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


def test_matching_moments_works_on_images_and_keeps_their_type():
    x1 = torch.randn(100, 1, 2, 2, generator=torch.Generator().manual_seed(0)) * 2 + 1
    moved = match_moments(Pair(x1, x1), StandardNormal((1, 2, 2)).sample(100)).x1
    assert moved.shape == x1.shape
    assert moved.dtype == torch.float32


def test_the_terminal_test_passes_on_the_prior_and_fails_on_wrong_spreads():
    """As many samples of each: 20,000 in 8 dimensions, where the top eigenvalue scatters by about 1 %."""
    normal = StandardNormal((8,))
    first, second = normal.sample(20_000, seed=1), normal.sample(20_000, seed=2)
    honest = terminal_test(0.99 * first, second)
    assert honest.passed
    assert honest.covariance_error < 0.1
    wide = terminal_test(1.1 * first, second)
    assert not wide.passed
    assert wide.norm_mean_error == pytest.approx(0.21, abs=0.03)
    assert wide.top_eigenvalue == pytest.approx(1.21, abs=0.05)
    assert not terminal_test(0.9 * first, second).passed
    one_direction = first.clone()
    one_direction[:, 0] *= 1.2
    assert not terminal_test(one_direction, second).passed
    assert honest.spectrum.shape == (8,)
    assert (honest.spectrum.diff() <= 0).all()


def test_the_terminal_test_works_on_images_and_in_one_dimension():
    for shape in ((1, 2, 2), (1,)):
        normal = StandardNormal(shape)
        test = terminal_test(1.2 * normal.sample(5000, seed=1), normal.sample(5000, seed=2))
        assert not test.passed
        assert test.covariance_error == pytest.approx(0.44, abs=0.12)


@pytest.mark.parametrize(("n", "size"), list(itertools.product([1, 2, 7, 64, 65], [1, 2, 3, 5])))
def test_shards_are_a_partition_in_order(n, size):
    workers = [Workers() for _ in range(size)]
    for rank, worker in enumerate(workers):
        worker.rank, worker.size = rank, size
    shards = [worker.shard(n) for worker in workers]
    assert [row for shard in shards for row in shard] == list(range(n))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


@pytest.mark.parametrize(
    ("options", "field"),
    [({"num_steps": 0}, "num_steps"), ({"power": 0.0}, "power"), ({"batch_size": 0}, "batch_size")],
)
def test_impossible_simulations_are_refused_by_name(options, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        Simulation(**options)


def test_paths_of_two_draws_have_independent_noise():
    """Equal starts, so only the noise of the paths is left: n = 10,000, 5 standard errors."""
    problem, n = GaussianBridge(0.0, 1.0, 0.0, 1.0, BrownianMotion()), 10_000
    coupling = SimulatedCoupling(
        Gaussian(0.5, 0.0), Dynamics(problem.reference, problem.control), Simulation(num_steps=2)
    )
    first, second, again = (coupling.draw(step, range(n), STREAM).x1[:, 0] for step in (1, 2, 1))
    assert torch.equal(first, again)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / n**0.5


def test_simulating_in_several_batches_gives_the_same_pairs():
    problem = GaussianBridge([0.7, 0.0], np.diag([2.0, 0.5]), [0.0, 0.0], np.eye(2), BrownianMotion())
    dynamics = Dynamics(problem.reference, problem.control)
    whole, parts = (
        SimulatedCoupling(problem.data, dynamics, Simulation(num_steps=3, batch_size=size)).draw(
            2, range(50, 700), STREAM
        )
        for size in (4096, 99)
    )
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
