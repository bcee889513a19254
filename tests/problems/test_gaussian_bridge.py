"""The closed-form Gaussian bridge against printed values, matrix IPF, and Gaussian conditioning."""

import numpy as np
import pytest
import torch

from sbbridge.problems import BridgeProblem, GaussianBridge
from sbbridge.sde import VPSDE, BrownianMotion, LinearSDE
from tests.checks import TIMES, bridge_of, probe, tensor
from tests.oracles import REFERENCES, bridge_law, moments, random_gaussian

pytestmark = pytest.mark.usefixtures("float64")
every_reference = pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())

# p0 = N(0.7, 2), prior N(0, 1), fields at x = -1, 0, 1: m, tau2, C, P1, q, cost, u(.5), s_b(.5), h
PRINTED = {
    "vp4": (VPSDE(0.1, 4.0), 0.358796, 0.871265, 0.649760, 0.119822, -0.288268, 2.190480,
            (-0.09961, -0.12376, -0.14791), (1.04939, 0.43126, -0.18687), (1.16845, 0.28827, -0.59191)),
    "vp2": (VPSDE(0.1, 2.0), 0.591555, 0.650062, 0.967749, 0.342335, -0.636999, 1.554503,
            (-0.23285, -0.36789, -0.50292), (1.14287, 0.67024, 0.19761), (1.29466, 0.63700, -0.02067)),
    "vp20": (VPSDE(0.1, 20.0), 0.006572, 0.999957, 0.013143, 0.000043, -0.004600, 3.463715,
             (-0.00011, -0.00011, -0.00011), (1.10915, 0.18242, -0.74431), (1.00456, 0.00460, -0.99536)),
    "brownian": (BrownianMotion(1.0), 1.0, 1.0, 1.0, 1.0, -0.7, 1.49,
                 (0.2, -0.46667, -1.13333), (0.7, 0.7, 0.7), (0.7, 0.7, 0.7)),
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_every_column_of_the_printed_table_is_reproduced(name):
    reference, m, tau2, c, p1, q, cost, u, s, h = PRINTED[name]
    bridge = GaussianBridge(0.7, 2.0, 0.0, 1.0, reference)
    x = torch.tensor([[-1.0], [0.0], [1.0]])
    half_unit, of_fields = 0.51e-6, 0.51e-5
    assert reference.retained_memory == pytest.approx(m, abs=half_unit)
    assert reference.terminal_variance == pytest.approx(tau2, abs=half_unit)
    assert float(bridge.coupling_covariance) == pytest.approx(c, abs=half_unit)
    assert bridge.transport_cost == pytest.approx(cost, abs=half_unit)
    # -u at t = 1 is P1 x - q
    at_one = bridge.control(torch.tensor(1.0), x).flatten()
    assert float(at_one[1] - at_one[2]) == pytest.approx(p1, abs=half_unit)
    assert float(at_one[1]) == pytest.approx(q, abs=half_unit)
    half = torch.tensor(0.5)
    np.testing.assert_allclose(bridge.control(half, x).flatten(), u, atol=of_fields)
    np.testing.assert_allclose(bridge.backward_score(half, x).flatten(), s, atol=of_fields)
    np.testing.assert_allclose(bridge.corrector(x).flatten(), h, atol=of_fields)


# E (x0 - x1)^2 for data N(0, s) and prior N(0, 1): VP20, VP8, VP4, VP2
COSTS = {
    0.05: (1.049, 1.037, 1.009, 0.962),
    0.5: (1.493, 1.367, 1.118, 0.808),
    2.0: (2.974, 2.481, 1.700, 1.065),
    10.0: (10.87, 8.68, 6.65, 5.68),
    220.0: (218.1, 197.9, 193.7, 192.4),
}


@pytest.mark.parametrize("s", COSTS)
def test_transport_costs_of_the_printed_table_are_reproduced(s):
    for beta_max, cost in zip((20.0, 8.0, 4.0, 2.0), COSTS[s], strict=True):
        bridge = GaussianBridge(0.0, s, 0.0, 1.0, VPSDE(beta_max=beta_max))
        digits = 3 if cost < 5 else 2 if cost < 100 else 1
        assert bridge.transport_cost == pytest.approx(cost, abs=0.51 * 10**-digits)


@every_reference
def test_coupling_agrees_with_matrix_ipf_in_three_dimensions(reference):
    for seed in (0, 1):
        oracle = random_gaussian(seed, 3, reference)
        np.testing.assert_allclose(bridge_of(oracle).coupling_covariance, oracle.coupling, atol=1e-9)


@every_reference
def test_joint_precision_couples_the_ends_only_through_the_reference_kernel(reference):
    """The off-diagonal block of the joint precision is -(m / tau^2) I: the structure of every Schrödinger bridge."""
    oracle = random_gaussian(2, 3, reference)
    c = bridge_of(oracle).coupling_covariance.numpy()
    precision = np.linalg.inv(np.block([[oracle.cov0, c], [c.T, oracle.cov1]]))
    m, tau2 = moments(reference, 0.0, 1.0)
    np.testing.assert_allclose(precision[:3, 3:], -m / tau2 * np.eye(3), atol=1e-7)


@every_reference
def test_fields_are_the_conditional_means_that_training_regresses_on(reference):
    oracle = random_gaussian(3, 3, reference)
    bridge, x = bridge_of(oracle), probe(3)
    for t in TIMES:
        time = torch.tensor(t)
        control = bridge.control(time, tensor(x))
        np.testing.assert_allclose(control, -oracle.adjoint_mean(t, x), atol=2e-8)
        np.testing.assert_allclose(control, oracle.control(t, x), atol=2e-8)
        np.testing.assert_allclose(bridge.backward_score(time, tensor(x)), oracle.backward_score(t, x), atol=2e-8)
    np.testing.assert_allclose(bridge.corrector(tensor(x)), oracle.corrector(x), atol=2e-8)


@every_reference
def test_control_and_backward_score_add_up_to_the_score_of_the_marginal(reference):
    oracle = random_gaussian(4, 3, reference)
    bridge, x = bridge_of(oracle), probe(3)
    for t in TIMES:
        mean, cov = oracle.marginal(t)
        score = -np.linalg.solve(cov, (x - mean).T).T
        time = torch.tensor(t)
        both = bridge.control(time, tensor(x)) + bridge.backward_score(time, tensor(x))
        np.testing.assert_allclose(both, score, atol=2e-8)
        np.testing.assert_allclose(bridge.marginal(time).mean, mean, atol=1e-9)
        np.testing.assert_allclose(bridge.marginal(time).covariance, cov, atol=1e-9)


@every_reference
def test_marginals_end_at_the_data_and_at_the_prior(reference):
    bridge = bridge_of(random_gaussian(5, 3, reference))
    for t, mean, cov in ((0.0, bridge.mean0, bridge.cov0), (1.0, bridge.mean1, bridge.cov1)):
        law = bridge.marginal(t)
        np.testing.assert_allclose(law.mean, mean, atol=1e-12)
        np.testing.assert_allclose(law.covariance, cov, atol=1e-12)


@every_reference
def test_forward_sde_with_the_control_carries_the_data_to_the_prior(reference):
    """Moment ODEs of dX = (f + g^2 u) dt + g dW, integrated numerically: mean1, cov1 and Cov(x0, x1) come out."""
    from scipy.integrate import solve_ivp

    oracle = random_gaussian(6, 2, reference)
    bridge = bridge_of(oracle)

    def slope(t, y):
        mean, cov, cross = y[:2], y[2:6].reshape(2, 2), y[6:].reshape(2, 2)
        f, g2 = float(reference.drift_coefficient(t)), float(reference.diffusion(t)) ** 2
        offset, *columns = bridge.control(torch.tensor(t), torch.tensor([[0.0, 0], [1, 0], [0, 1]])).numpy()
        k = f * np.eye(2) + g2 * (np.array(columns) - offset).T
        return np.concatenate(
            [k @ mean + g2 * offset, (k @ cov + cov @ k.T + g2 * np.eye(2)).ravel(), (cross @ k.T).ravel()]
        )

    start = np.concatenate([oracle.mean0, oracle.cov0.ravel(), oracle.cov0.ravel()])
    end = solve_ivp(slope, (0, 1), start, rtol=1e-8, atol=1e-10).y[:, -1]
    np.testing.assert_allclose(end[:2], oracle.mean1, atol=1e-6)
    np.testing.assert_allclose(end[2:6].reshape(2, 2), oracle.cov1, atol=1e-6)
    np.testing.assert_allclose(end[6:].reshape(2, 2), bridge.coupling_covariance, atol=1e-6)


def test_cross_correlation_of_equal_ends_at_the_stationary_law_needs_no_control():
    """N(0, sigma^2 I) at both ends of a VP reference: the reference is the bridge, and u = 0."""
    reference = VPSDE(sigma=1.3)
    bridge = GaussianBridge([0.0, 0.0], 1.69 * np.eye(2), [0.0, 0.0], 1.69 * np.eye(2), reference)
    for t in (0.0, 0.3, 1.0):
        assert bridge.control(torch.tensor(t), tensor(probe(2))).abs().max() < 1e-12
    np.testing.assert_allclose(bridge.coupling_covariance, reference.retained_memory * 1.69 * np.eye(2), atol=1e-12)


def test_references_with_one_kernel_have_one_coupling():
    """`constant` and `linear` schedules, and LinearSDE's defaults, differ from VP(0.1, 4) only between the ends."""
    ends = ([0.3, -1.0], [[2.0, 0.4], [0.4, 0.5]], [0.0, 0.2], [[1.0, 0.1], [0.1, 0.8]])
    vp = GaussianBridge(*ends, VPSDE()).coupling_covariance
    constant = GaussianBridge(*ends, VPSDE(schedule="constant")).coupling_covariance
    np.testing.assert_allclose(constant, vp, atol=1e-12)
    np.testing.assert_allclose(GaussianBridge(*ends, LinearSDE()).coupling_covariance, vp, atol=1e-6)


@pytest.mark.parametrize("singular", ["cov0", "cov1", "both"])
@every_reference
def test_constant_pixels_give_the_limit_of_the_regularised_problem(reference, singular):
    """Singular covariances, as three of the digits' pixels have: finite, and where ever smaller variances lead."""
    oracle = random_gaussian(7, 3, reference)
    keep = np.diag([1.0, 0.0, 1.0])
    flat0 = keep @ oracle.cov0 @ keep if singular in ("cov0", "both") else oracle.cov0
    flat1 = keep @ oracle.cov1 @ keep if singular in ("cov1", "both") else oracle.cov1
    bridge = GaussianBridge(oracle.mean0, flat0, oracle.mean1, flat1, reference)
    little = 1e-7 * np.eye(3)
    near = GaussianBridge(oracle.mean0, flat0 + little, oracle.mean1, flat1 + little, reference)
    x = tensor(probe(3))
    for t in (0.2, 0.7):
        time = torch.tensor(t)
        for field in ("control", "backward_score"):
            value, limit = getattr(bridge, field)(time, x), getattr(near, field)(time, x)
            assert torch.isfinite(value).all()
            np.testing.assert_allclose(value, limit, atol=2e-4, rtol=1e-5)
    np.testing.assert_allclose(bridge.coupling_covariance, near.coupling_covariance, atol=1e-5)
    np.testing.assert_allclose(bridge.corrector(x), near.corrector(x), atol=2e-4)
    pair = bridge.couple(500)
    assert torch.isfinite(pair.x0).all()
    assert torch.isfinite(pair.x1).all()
    if singular != "cov1":
        assert (pair.x0[:, 1] - float(oracle.mean0[1])).abs().max() < 1e-5


@every_reference
def test_drawn_pairs_have_the_exact_joint_moments(reference):
    """Standard errors of means and covariances at n = 40,000; 5.5 of them is a false alarm below 1e-6 in 14 entries."""
    oracle = random_gaussian(8, 2, reference)
    n = 40_000
    pair = bridge_of(oracle).couple(n, seed=3)
    joint = torch.cat([pair.x0, pair.x1], 1).numpy()
    mean, cov = oracle.ends
    assert np.abs((joint.mean(0) - mean) / np.sqrt(np.diag(cov) / n)).max() < 5.5
    spread = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / n)
    assert np.abs((np.cov(joint.T) - cov) / spread).max() < 5.5


@every_reference
def test_a_time_for_every_row_gives_what_one_time_gives(reference):
    bridge, x = bridge_of(random_gaussian(9, 3, reference)), tensor(probe(3))
    times = torch.linspace(0.1, 0.95, len(x))
    for field in (bridge.control, bridge.backward_score):
        together = field(times, x)
        alone = torch.cat([field(t, row[None]) for t, row in zip(times, x, strict=True)])
        np.testing.assert_allclose(together, alone, atol=1e-12)


def test_fields_keep_single_precision():
    bridge = bridge_of(random_gaussian(10, 2, VPSDE()))
    x = tensor(probe(2)).float()
    half = torch.tensor(0.5)
    for value in (bridge.control(half, x), bridge.backward_score(half, x), bridge.corrector(x)):
        assert value.dtype == torch.float32


def test_corrector_is_the_backward_score_at_one():
    bridge, x = bridge_of(random_gaussian(11, 3, VPSDE())), tensor(probe(3))
    np.testing.assert_allclose(bridge.backward_score(torch.tensor(1.0), x), bridge.corrector(x), atol=1e-10)


def test_posterior_gain_is_that_of_the_joint_law():
    oracle = random_gaussian(12, 3, VPSDE())
    bridge = bridge_of(oracle)
    wanted = np.linalg.solve(oracle.cov1, oracle.coupling.T).T
    np.testing.assert_allclose(bridge.posterior_gain, wanted, atol=1e-9)
    rest0 = oracle.cov0 - wanted @ oracle.cov1 @ wanted.T
    np.testing.assert_allclose(bridge.conditional_covariance0, rest0, atol=1e-9)
    gain1 = np.linalg.solve(oracle.cov0, oracle.coupling).T
    np.testing.assert_allclose(bridge.conditional_covariance1, oracle.cov1 - gain1 @ oracle.cov0 @ gain1.T, atol=1e-9)


def test_memoryless_reference_has_the_independent_coupling():
    """A VP reference that forgets everything: C and the control vanish, and s_b is the score of the marginal."""
    bridge = GaussianBridge([1.0], [[2.0]], [0.0], [[1.0]], VPSDE(beta_max=60.0))
    assert bridge.coupling_covariance.abs().max() < 1e-5
    assert bridge.control(torch.tensor(0.5), tensor(probe(1))).abs().max() < 1e-5
    assert bridge.transport_cost == pytest.approx(4.0, abs=1e-4)


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match="shape"):
        GaussianBridge([0.0], [[1.0]], [0.0, 0.0], np.eye(2), VPSDE())
    from sbbridge.data import StandardNormal

    with pytest.raises(ValueError, match="must agree"):
        BridgeProblem(StandardNormal((2,)), StandardNormal((3,)), VPSDE())


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ([[1.0, 0.5], [0.0, 1.0]], "symmetric"),
        ([[1.0, 0.0], [0.0, -1.0]], "semi-definite"),
        ([[np.nan, 0], [0, 1]], "finite"),
    ],
)
def test_matrices_that_are_no_covariances_are_refused(covariance, message):
    with pytest.raises(ValueError, match=message):
        GaussianBridge([0.0, 0.0], covariance, [0.0, 0.0], np.eye(2), VPSDE())


def test_oracle_bridge_law_is_the_textbook_brownian_bridge():
    """The oracle itself, once, against what everybody knows."""
    np.testing.assert_allclose(bridge_law(BrownianMotion(2.0), 0.3), (0.7, 0.3, 4 * 0.3 * 0.7), atol=1e-10)
