"""A bridge between laws that are not Gaussian, solved on a grid: printed values, and the closed form."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from sbbridge.problems import GaussianBridge, MixtureBridge
from sbbridge.sde import VPSDE, BrownianMotion
from tests.oracles import grid_sinkhorn, moments

pytestmark = pytest.mark.usefixtures("float64")

# p0 = N(-1.5, 0.3^2) / 2 + N(1, 0.5^2) / 2, prior N(0, 1): cov, cost, E[x1 | x0 = -1.5, 0, 1], E[x0 | x1 = -1, 0, 1],
# (u, s_b) at t = 0.5 and x = -1, 0, 1
PRINTED = {
    VPSDE(0.1, 4.0): (
        0.57527,
        1.64446,
        (-0.41483, 0.08370, 0.41481),
        (-0.88227, -0.26857, 0.38917),
        ((0.06508, -0.14259), (0.04560, 0.10089), (0.02547, -0.46457)),
    ),
    VPSDE(0.1, 2.0): (
        0.86107,
        1.07287,
        (-0.61566, 0.12683, 0.61302),
        (-1.28571, -0.30131, 0.82250),
        ((0.27699, -0.92992), (0.13806, 0.73318), (-0.00126, -0.31742)),
    ),
    BrownianMotion(1.0): (
        0.88878,
        1.01743,
        (-0.63383, 0.13078, 0.63028),
        (-1.32606, -0.30641, 0.86750),
        ((0.86734, -0.84643), (0.17665, -0.05567), (-0.51807, 0.09698)),
    ),
}


def log_p0(x):
    return np.logaddexp(norm.logpdf(x, -1.5, 0.3), norm.logpdf(x, 1.0, 0.5)) - np.log(2)


@cache
def solved(reference):
    return grid_sinkhorn(reference, log_p0, norm.logpdf)


@pytest.mark.parametrize("reference", PRINTED, ids=["vp4", "vp2", "brownian"])
def test_the_grid_reproduces_the_printed_non_gaussian_bridge(reference):
    bridge, (cov, cost, forward, backward, fields) = solved(reference), PRINTED[reference]
    printed = 1e-5  # half a unit of the last digit, and as much for the grids
    assert bridge.covariance() == pytest.approx(cov, abs=printed)
    assert bridge.cost() == pytest.approx(cost, abs=printed)
    for x0, wanted in zip((-1.5, 0.0, 1.0), forward, strict=True):
        assert bridge.x1_given_x0(x0) == pytest.approx(wanted, abs=printed)
    for x1, wanted in zip((-1.0, 0.0, 1.0), backward, strict=True):
        assert bridge.x0_given_x1(x1) == pytest.approx(wanted, abs=printed)
    for x, (u, s) in zip((-1.0, 0.0, 1.0), fields, strict=True):
        assert bridge.control(0.5, x) == pytest.approx(u, abs=printed)
        assert bridge.backward_score(0.5, x) == pytest.approx(s, abs=printed)


@pytest.mark.parametrize(
    "reference", [VPSDE(), VPSDE(beta_max=2.0), BrownianMotion(0.8)], ids=["vp4", "vp2", "brownian"]
)
def test_the_gaussian_bridge_is_what_sinkhorn_converges_to(reference):
    exact = GaussianBridge(0.7, 0.64, -0.3, 1.0, reference)
    grid = grid_sinkhorn(reference, lambda x: norm.logpdf(x, 0.7, 0.8), lambda x: norm.logpdf(x, -0.3, 1.0))
    assert grid.covariance() == pytest.approx(float(exact.coupling_covariance), abs=1e-6)
    assert grid.cost() == pytest.approx(exact.transport_cost, abs=1e-6)
    for t in (0.2, 0.5, 0.9):
        for x in (-1.0, 0.0, 1.5):
            at = torch.tensor(t), torch.tensor([[x]])
            assert grid.control(t, x) == pytest.approx(float(exact.control(*at)), abs=1e-6)
            assert grid.backward_score(t, x) == pytest.approx(float(exact.backward_score(*at)), abs=1e-6)


def test_the_mixture_bridge_is_what_sinkhorn_converges_to():
    """Sinkhorn gets only the two marginals of the mixture bridge; it must find the potential's plan."""
    reference = VPSDE(beta_max=2.0)
    bridge = MixtureBridge([0.3, 0.7], [[-1.5], [1.0]], [0.16, 0.36], reference)
    m, tau2 = moments(reference, 0.0, 1.0)
    x = np.linspace(-9, 9, 1801)
    potential = np.logaddexp(np.log(0.3) + norm.logpdf(x, -1.5, 0.4), np.log(0.7) + norm.logpdf(x, 1.0, 0.6))
    kernel = norm.logpdf(x[None], m * x[:, None], tau2**0.5)
    phi1 = norm.logpdf(x) - logsumexp(potential[:, None] + kernel, axis=0)
    log_data = potential + logsumexp(kernel + phi1[None], axis=1)
    grid = grid_sinkhorn(reference, lambda y: np.interp(y, x, log_data), norm.logpdf)
    for at in (-1.0, 0.0, 1.0):
        exact = float(bridge.conditional_moments(torch.tensor([[at]])).mean)
        assert grid.x0_given_x1(at) == pytest.approx(exact, abs=2e-5)
        score = float(bridge.backward_score(torch.tensor(0.5), torch.tensor([[at]])))
        assert grid.backward_score(0.5, at) == pytest.approx(score, abs=1e-4)
