"""The mixture bridge against quadrature, autograd and Monte Carlo."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, norm

from sbbridge.problems import MixtureBridge
from sbbridge.sde import VPSDE, BrownianMotion
from tests.oracles import REFERENCES, moments

pytestmark = pytest.mark.usefixtures("float64")
every_reference = pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())

WEIGHTS, MEANS, STDS = (0.3, 0.7), (-1.5, 1.0), (0.4, 0.6)


def bridge_1d(reference):
    return MixtureBridge(WEIGHTS, [[mean] for mean in MEANS], [std**2 for std in STDS], reference)


def potential(x0):
    """phihat_0, written apart from the product."""
    return sum(w * norm.pdf(x0, mu, s) for w, mu, s in zip(WEIGHTS, MEANS, STDS, strict=True))


def posterior_moment(reference, x1, power):
    """∫ x0^power phihat_0(x0) N(x1; m x0, tau^2) dx0, by quadrature."""
    m, tau2 = moments(reference, 0.0, 1.0)
    return quad(
        lambda x0: x0**power * potential(x0) * norm.pdf(x1, m * x0, tau2**0.5), -8, 8, points=[*MEANS], limit=200
    )[0]


@pytest.mark.parametrize("name", ["vp4", "brownian", "ve", "linear"])
def test_backward_score_is_the_slope_of_the_propagated_potential(name):
    """phihat_t(x) = ∫ phihat_0(x0) N(x; kappa x0, V) dx0 by quadrature, and its logarithm's difference quotient."""
    reference, step = REFERENCES[name], 1e-4
    bridge = bridge_1d(reference)
    for t in (0.2, 1.0):
        k, v = moments(reference, 0.0, t)

        def log_phihat(x, k=k, v=v):
            places = [*MEANS, np.clip(x / k, -7.9, 7.9)]
            return np.log(
                quad(
                    lambda x0: potential(x0) * norm.pdf(x, k * x0, v**0.5),
                    -8,
                    8,
                    points=places,
                    limit=400,
                    epsabs=1e-13,
                    epsrel=1e-11,
                )[0]
            )

        for x in (-1.8, 0.6):
            slope = (log_phihat(x + step) - log_phihat(x - step)) / (2 * step)
            value = float(bridge.backward_score(torch.tensor(t), torch.tensor([[x]])))
            assert value == pytest.approx(slope, abs=2e-5)


@every_reference
def test_backward_score_is_autograds_gradient_of_a_torch_mixture(reference):
    """In three dimensions with full diagonals, against torch.distributions."""
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    rng = np.random.default_rng(0)
    weights, means, variances = np.array([0.2, 0.5, 0.3]), rng.normal(size=(3, 3)) * 2, rng.uniform(0.1, 1.0, (3, 3))
    bridge = MixtureBridge(weights, means, variances, reference)
    x = torch.tensor(rng.normal(size=(5, 3)) * 2, requires_grad=True)
    for t in (0.15, 0.8):
        k, v = moments(reference, 0.0, t)
        components = Independent(Normal(torch.tensor(k * means), torch.tensor((k * k * variances + v) ** 0.5)), 1)
        law = MixtureSameFamily(Categorical(torch.tensor(weights)), components)
        (gradient,) = torch.autograd.grad(law.log_prob(x).sum(), x)
        np.testing.assert_allclose(bridge.backward_score(torch.tensor(t), x.detach()), gradient, atol=1e-8)


@every_reference
def test_conditional_moments_agree_with_quadrature(reference):
    x1 = torch.tensor([[-1.3], [0.2], [2.1]])
    got = bridge_1d(reference).conditional_moments(x1)
    for i, at in enumerate(x1.flatten().tolist()):
        mass, first, second = (posterior_moment(reference, at, power) for power in (0, 1, 2))
        assert float(got.mean[i, 0]) == pytest.approx(first / mass, abs=1e-7)
        assert float(got.covariance[i, 0, 0]) == pytest.approx(second / mass - (first / mass) ** 2, abs=1e-7)


def test_conditional_samples_have_the_conditional_moments():
    """2-D, n = 40,000: 5 standard errors in 5 entries of 2 points is a false alarm below 1e-5."""
    bridge = MixtureBridge([1, 2], [[-1.0, 0.5], [1.5, 0.0]], [[0.2, 0.5], [0.4, 0.1]], VPSDE(beta_max=2.0))
    n = 40_000
    for point in ([0.3, -0.4], [-1.5, 1.0]):
        x1 = torch.tensor([point]).expand(n, 2)
        x0 = bridge.sample_conditional(x1, seed=1).numpy()
        exact = bridge.conditional_moments(x1[:1])
        mean, cov = exact.mean[0].numpy(), exact.covariance[0].numpy()
        assert np.abs((x0.mean(0) - mean) / np.sqrt(np.diag(cov) / n)).max() < 5
        centred = x0 - mean
        products = centred[:, :, None] * centred[:, None, :]
        assert np.abs((products.mean(0) - cov) / (products.std(0) / n**0.5)).max() < 5


@pytest.mark.parametrize("draw", ["data", "couple"])
@pytest.mark.parametrize("reference", [VPSDE(beta_max=2.0), BrownianMotion(0.6)], ids=["vp2", "brownian"])
def test_data_marginal_agrees_with_quadrature(reference, draw):
    """p_0(x0) = phihat_0(x0) ∫ N(x1; 0, 1) N(x1; m x0, tau^2) / phihat_1(x1) dx1 on a grid; KS at 1e-5."""
    m, tau2 = moments(reference, 0.0, 1.0)
    x0, x1 = np.linspace(-6, 6, 1201), np.linspace(-7, 7, 1401)
    kernel = norm.pdf(x1[None], m * x0[:, None], tau2**0.5)
    phihat1 = potential(x0) @ kernel * (x0[1] - x0[0])
    density = potential(x0) * (kernel @ (norm.pdf(x1) / phihat1)) * (x1[1] - x1[0])
    cdf = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)]) * (x0[1] - x0[0])
    assert cdf[-1] == pytest.approx(1, abs=1e-4)
    bridge = bridge_1d(reference)
    samples = bridge.data.sample(20_000, seed=2) if draw == "data" else bridge.couple(20_000, seed=2).x0
    assert kstest(samples.numpy()[:, 0], lambda x: np.interp(x, x0, cdf)).pvalue > 1e-5


def test_drawn_pairs_start_from_the_prior_and_follow_the_plan():
    bridge = bridge_1d(VPSDE(beta_max=2.0))
    pair = bridge.couple(40_000, seed=4)
    assert kstest(pair.x1.numpy()[:, 0], "norm").pvalue > 1e-5
    exact = bridge.conditional_moments(pair.x1)
    residual = ((pair.x0 - exact.mean) / exact.covariance[:, 0].sqrt())[:, 0].numpy()
    n = len(residual)
    # standardised residuals: mean 0, variance 1, uncorrelated with x1, each within 5 standard errors
    assert abs(residual.mean()) < 5 / n**0.5
    assert abs((residual**2).mean() - 1) < 5 * (residual**2).std() / n**0.5
    assert abs(np.corrcoef(residual, pair.x1[:, 0])[0, 1]) < 5 / n**0.5


def test_one_gaussian_component_is_a_gaussian_bridge():
    """With one component the plan is Gaussian: its data marginal's backward score is the Gaussian bridge's."""
    from sbbridge.problems import GaussianBridge

    reference = VPSDE()
    mixture = MixtureBridge([1.0], [[0.4]], [0.9], reference)
    gain = (posterior_moment_1c(reference, 1.0) - posterior_moment_1c(reference, 0.0)).item()
    offset = posterior_moment_1c(reference, 0.0).item()
    rest = float(mixture.conditional_moments(torch.zeros(1, 1)).covariance)
    gaussian = GaussianBridge(offset, gain**2 + rest, 0.0, 1.0, reference)
    x = torch.tensor([[-1.0], [0.5], [2.0]])
    for t in (0.1, 0.5, 1.0):
        time = torch.tensor(t)
        np.testing.assert_allclose(mixture.backward_score(time, x), gaussian.backward_score(time, x), atol=1e-10)


def posterior_moment_1c(reference, x1):
    return MixtureBridge([1.0], [[0.4]], [0.9], reference).conditional_moments(torch.tensor([[x1]])).mean


@every_reference
def test_a_time_for_every_row_gives_what_one_time_gives(reference):
    bridge = bridge_1d(reference)
    x, times = torch.linspace(-2, 2, 6)[:, None], torch.linspace(0.1, 1.0, 6)
    alone = torch.cat([bridge.backward_score(t, row[None]) for t, row in zip(times, x, strict=True)])
    np.testing.assert_allclose(bridge.backward_score(times, x), alone, atol=1e-12)


@pytest.mark.parametrize(
    ("weights", "means", "variances"),
    [
        ([1, -1], [[0.0], [1.0]], [1, 1]),
        ([1, 1], [[0.0], [1.0]], [1, 0]),
        ([1], [[0.0], [1.0]], [1, 1]),
        ([1, 1], [0.0, 1.0], [1, 1]),
    ],
)
def test_impossible_mixtures_are_refused(weights, means, variances):
    with pytest.raises(ValueError, match=r"positive|\[components, dimension\]"):
        MixtureBridge(weights, means, variances, VPSDE())
