"""A prior known by its energy."""

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest

import sbbridge
from sbbridge.data import DoubleWell, EnergyPrior, Gaussian, GaussianMixture, StandardNormal, double_well
from sbbridge.rng import Stream

PRECISION = torch.tensor([[2.0, 0.5], [0.5, 1.0]])
X = torch.tensor([[0.3, -1.0], [2.0, 0.5], [0.0, 0.0]])


def quadratic(x):
    return 0.5 * torch.einsum("ni,ij,nj->n", x, PRECISION.to(x), x)


def test_the_score_of_a_quadratic_energy_is_linear():
    torch.testing.assert_close(EnergyPrior(quadratic, (2,)).score(X), -X @ PRECISION)


def test_the_score_of_a_mixtures_energy_is_the_mixtures():
    mixture = GaussianMixture([1, 2], [[0.0, 1.0], [2.0, -1.0]], [0.5, 0.3])
    prior = EnergyPrior(lambda x: 7.0 - mixture.log_prob(x), (2,))
    torch.testing.assert_close(prior.score(X), mixture.score(X))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_score_needs_no_gradients_around_it_and_leaves_none(context):
    with context():
        x = X.clone()
        score = EnergyPrior(quadratic, (2,)).score(x)
        torch.testing.assert_close(score, -X @ PRECISION)
    assert not score.requires_grad
    assert x.grad is None
    assert not x.requires_grad


def test_images_keep_shape_and_type():
    prior = EnergyPrior(lambda x: x.pow(4).sum((1, 2, 3)), (1, 2, 2))
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
    torch.testing.assert_close(prior.score(x), -4 * x**3)


def test_without_a_sampler_it_cannot_be_sampled():
    with pytest.raises(TypeError, match="cannot be sampled"):
        EnergyPrior(quadratic, (2,)).sample(3)


def test_with_a_sampler_it_draws_that():
    law = Gaussian([0.0, 0.0], torch.linalg.inv(PRECISION))
    prior = EnergyPrior(quadratic, (2,), sampler=law)
    assert torch.equal(prior.draw(4, range(10, 20), Stream(1)), law.draw(4, range(10, 20), Stream(1)))
    x = prior.sample(20_000)
    assert kstest(x[:, 0] / law.covariance[0, 0] ** 0.5, "norm").pvalue > 1e-5


def test_a_sampler_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="must agree"):
        EnergyPrior(quadratic, (2,), sampler=StandardNormal((3,)))


def test_an_energy_that_is_not_one_number_a_state_is_refused():
    with pytest.raises(ValueError, match=r"must map \(3, 2\) to \[3\]"):
        EnergyPrior(lambda x: x.sum(), (2,)).score(X)


def test_it_is_exported():
    assert sbbridge.EnergyPrior is EnergyPrior


@pytest.mark.parametrize("height", [0.5, 2.0, 6.0])
def test_the_double_wells_samples_have_its_energys_law(height):
    """Against the distribution function by scipy's quadrature; the second coordinate is standard normal."""
    x = double_well(height).sample(20_000, seed=1).double()
    density = lambda z: float(torch.exp(-DoubleWell(height).energy(torch.tensor([[z, 0.0]], dtype=torch.float64))))  # noqa: E731
    whole, _ = quad(density, -5, 5)
    for edge in (-1.2, -0.9, 0.0, 0.5, 1.1):
        wanted = quad(density, -5, edge)[0] / whole
        assert float((x[:, 0] < edge).double().mean()) == pytest.approx(wanted, abs=4 * 0.5 / 20_000**0.5)
    assert kstest(x[:, 1], "norm").pvalue > 1e-5
    assert abs(float(torch.corrcoef(x.T)[0, 1])) < 5 / 20_000**0.5
    torch.testing.assert_close(DoubleWell(height).score(X), double_well(height).score(X))


def test_a_double_well_without_a_barrier_is_refused():
    with pytest.raises(ValueError, match="height must be > 0, got 0"):
        DoubleWell(0)


def test_rows_of_a_double_well_are_addressed():
    law = DoubleWell()
    whole = law.draw(3, range(100), Stream(1))
    assert torch.equal(law.draw(3, range(40, 60), Stream(1)), whole[40:60])
