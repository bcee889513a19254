"""Every objective, solved exactly: on sigma points least squares has no sampling error."""

import numpy as np
import pytest
import torch

from sbbridge import objectives
from sbbridge.objectives import Regression
from sbbridge.sde import BrownianMotion
from tests.checks import (
    bridge_of,
    check_adjoint_matching,
    check_backward_bridge_matching,
    check_corrector_matching,
    check_denoising_score_matching,
    check_forward_bridge_matching,
    exact_batch,
    least_squares,
    probe,
    tensor,
)
from tests.oracles import REFERENCES, condition, moments, random_gaussian

pytestmark = pytest.mark.usefixtures("float64")
every_reference = pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())


@every_reference
def test_adjoint_matching_with_the_exact_corrector_gives_the_optimal_control(reference):
    check_adjoint_matching(reference)


@every_reference
def test_corrector_matching_on_the_exact_coupling_gives_the_exact_corrector(reference):
    check_corrector_matching(reference)


@every_reference
def test_backward_bridge_matching_gives_the_backward_score(reference):
    check_backward_bridge_matching(reference)


@every_reference
def test_forward_bridge_matching_on_the_exact_coupling_gives_the_optimal_control(reference):
    check_forward_bridge_matching(reference)


@every_reference
def test_denoising_score_matching_gives_the_score_of_noised_data(reference):
    check_denoising_score_matching(reference)


def test_forward_bridge_matching_on_independent_pairs_is_the_markovian_projection():
    """A coupling that is not the bridge's: only the conditional mean is left to compare with."""
    reference = REFERENCES["vp4"]
    oracle = random_gaussian(8, 2, reference)
    mean = np.concatenate([oracle.mean0, oracle.mean1])
    cov = np.block([[oracle.cov0, np.zeros((2, 2))], [np.zeros((2, 2)), oracle.cov1]])
    x0, x1, noise = exact_batch(mean, cov, 2, 1)
    t = 0.4
    regression = objectives.forward_bridge_matching(reference, torch.full((len(x0),), t), x0, x1, noise)
    k, v = moments(reference, t, 1.0)
    before, v_before = moments(reference, 0.0, t)
    # (x1, x_t): independent ends, x_t the reference bridge, whose law given both ends solves two linear equations
    m = k * before
    b = k * v_before / (k * k * v_before + v)
    a = before - b * m
    rest = v_before - b * k * v_before
    lift = np.block([[np.zeros((2, 2)), np.eye(2)], [a * np.eye(2), b * np.eye(2)]])
    joint = lift @ cov @ lift.T
    joint[2:, 2:] += rest * np.eye(2)
    offset, gain, _ = condition(lift @ mean, joint, slice(2, 4), slice(0, 2))
    wanted = k * (offset + probe(2) @ gain.T - k * probe(2)) / v
    np.testing.assert_allclose(least_squares(regression)(probe(2)), wanted, atol=1e-8)


def test_corrector_matching_on_reference_pairs_is_the_score_of_the_reference_end():
    """The first corrector of every run: on the uncontrolled reference, h is the score of where data end."""
    reference = REFERENCES["vp4"]
    oracle = random_gaussian(9, 2, reference)
    m, tau2 = moments(reference, 0.0, 1.0)
    end = m * m * oracle.cov0 + tau2 * np.eye(2)
    mean = np.concatenate([oracle.mean0, m * oracle.mean0])
    cov = np.block([[oracle.cov0, m * oracle.cov0], [m * oracle.cov0, end]])
    x0, x1 = exact_batch(mean, cov, 2, 0)
    solved = least_squares(objectives.corrector_matching(reference, x0, x1))
    wanted = -np.linalg.solve(end, (probe(2) - m * oracle.mean0).T).T
    np.testing.assert_allclose(solved(probe(2)), wanted, atol=1e-9)


@every_reference
def test_the_loss_has_no_gradient_at_the_exact_control(reference):
    """The weighted loss itself, not only its target: its gradient vanishes at the closed form."""
    oracle = random_gaussian(11, 2, reference)
    bridge = bridge_of(oracle)
    x0, x1, noise = exact_batch(*oracle.ends, 2, 1)
    t = torch.full((len(x0),), 0.6)
    for regression, field in (
        (objectives.forward_bridge_matching(reference, t, x0, x1, noise), bridge.control),
        (objectives.corrector_matching(reference, x0, x1), lambda t, x: bridge.corrector(x)),
    ):
        slope, offset = torch.zeros(2, 2, requires_grad=True), torch.zeros(2, requires_grad=True)
        prediction = field(regression.t, regression.x) + regression.x @ slope + offset
        regression.loss(prediction).backward()
        assert slope.grad.abs().max() < 1e-9
        assert offset.grad.abs().max() < 1e-9


@every_reference
def test_the_weight_of_forward_bridge_matching_keeps_late_times_from_dominating(reference):
    """The target's spread grows as 1 / V(t, 1); weighted, its loss stays of order one."""
    oracle = random_gaussian(13, 2, reference)
    x0, x1, noise = exact_batch(*oracle.ends, 2, 1)
    for t in (0.5, 0.99, 0.9999):
        regression = objectives.forward_bridge_matching(reference, torch.full((len(x0),), t), x0, x1, noise)
        loss = regression.loss(tensor(oracle.control(t, regression.x.numpy())))
        assert float(loss) < 10


def test_a_cycle_of_exact_adjoint_and_corrector_matching_is_one_ipf_iteration():
    """The error of the covariance modes contracts by rho^4 a cycle, rho the bridge's correlation."""
    reference = REFERENCES["vp4"]
    m, tau2 = moments(reference, 0.0, 1.0)
    s = 10.0
    # reference coupling first, as the method starts
    joint = np.array([[s, m * s], [m * s, m * m * s + tau2]])
    exact = float(bridge_of(random_gaussian_1d(s)).coupling_covariance)
    errors = []
    for _ in range(6):
        x0, x1 = exact_batch(np.zeros(2), joint, 1, 0)
        h = least_squares(objectives.corrector_matching(reference, x0, x1))
        adjoint = x1 + tensor(h(x1.numpy()))
        noise = torch.zeros_like(x0)
        # at t = 0 the bridge is at x0, so one regression gives phi_0's gradient and with it the end's law given x0
        regression = objectives.adjoint_matching(reference, torch.ones(len(x0)), x0, x1, adjoint, noise)
        u1 = least_squares(regression)  # ∇log phi_1
        precision = float(-(u1(np.ones((1, 1))) - u1(np.zeros((1, 1))))[0, 0])
        variance = 1 / (precision + 1 / tau2)
        gain = variance * m / tau2
        joint = np.array([[s, gain * s], [gain * s, gain * gain * s + variance]])
        errors.append(abs(joint[0, 1] - exact))
    rho2 = exact**2 / s
    assert errors[-1] / errors[-2] == pytest.approx(rho2**2, rel=0.02)


def random_gaussian_1d(s):
    from tests.oracles import GaussianOracle

    one = np.ones((1, 1))
    return GaussianOracle(np.zeros(1), s * one, np.zeros(1), one, REFERENCES["vp4"])


def test_the_loss_is_the_mean_over_batch_and_dimensions():
    x = torch.arange(6.0).reshape(3, 2)
    regression = Regression(torch.zeros(3), x, x)
    assert float(regression.loss(x + 2)) == 4.0
    weighted = Regression(torch.zeros(3), x, x, weight=torch.tensor([0.0, 0.0, 3.0]))
    assert float(weighted.loss(x + 2)) == 4.0
    assert float(weighted.loss(x + torch.tensor([[1.0], [1.0], [2.0]]))) == 4.0


def test_objectives_accept_images_and_keep_single_precision():
    reference = BrownianMotion()
    x = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    t = torch.linspace(0.1, 0.9, 4, dtype=torch.float64)
    for regression in (
        objectives.adjoint_matching(reference, t, x, x, x, x),
        objectives.backward_bridge_matching(reference, t, x, x, x),
        objectives.forward_bridge_matching(reference, t, x, x, x),
        objectives.denoising_score_matching(reference, t, x, x),
        objectives.corrector_matching(reference, x, x),
    ):
        assert regression.x.shape == regression.target.shape == x.shape
        assert regression.x.dtype == regression.target.dtype == torch.float32
        assert regression.loss(torch.zeros_like(x)).dtype == torch.float32
