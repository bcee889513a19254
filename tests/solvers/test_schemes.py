"""Every scheme with exact 1-D fields: moments without sampling, orders of convergence, the last step."""

import numpy as np
import pytest
import torch

from sbbridge.path import node_times
from sbbridge.rng import Stream
from sbbridge.sde import VPSDE, BrownianMotion, LinearSDE
from sbbridge.solvers import BACKWARD, FORWARD, Dynamics, integrate, time_grid
from tests.checks import (
    backward_moments,
    check_backward_order,
    check_exact_covariance,
    check_forward_order,
    forward_moments,
    one_dimensional,
    order_of,
    probe_step,
    propagate,
)
from tests.oracles import REFERENCES, moments

pytestmark = pytest.mark.usefixtures("float64")
every_reference = pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
SMOOTH = {"vp4": VPSDE(), "brownian": BrownianMotion(), "linear": LinearSDE()}
STEPWISE = [name for name in BACKWARD if name != "one_step"]
smooth_reference = pytest.mark.parametrize("reference", SMOOTH.values(), ids=SMOOTH.keys())


@pytest.mark.parametrize("scheme", ["exponential", "exponential_heun"])
@every_reference
def test_exponential_schemes_have_the_exact_covariance_at_any_number_of_steps(reference, scheme):
    check_exact_covariance(reference, scheme)


@pytest.mark.parametrize(("scheme", "order"), [("exponential", 1), ("euler_maruyama", 1), ("exponential_heun", 2)])
@smooth_reference
def test_terminal_variance_converges_with_its_order(reference, scheme, order):
    check_forward_order(reference, scheme, order)


@pytest.mark.parametrize("scheme", ["ancestral", "exponential", "euler_maruyama"])
@smooth_reference
def test_backward_sdes_converge_to_the_data_with_order_one(reference, scheme):
    check_backward_order(reference, scheme, 1)


@smooth_reference
def test_heun_on_the_flow_converges_to_the_data(reference):
    """The whole way down: its last step is Euler's, whose one-step error is of second order, too."""
    steps = [32, 64, 128, 256]
    ends = [backward_moments(reference, "heun", n) for n in steps]
    errors = [variance - 2.0 for _, variance, _ in ends]
    assert abs(errors[-1]) < 2e-3
    assert abs(ends[-1][0] - 0.7) < 1e-3
    assert order_of(errors, steps) > 1.75


@smooth_reference
def test_heun_has_order_two_between_interior_times(reference):
    """From 1 to 0.2, without the last Euler step: the flow carries std to std, so |slope| is known."""
    bridge = one_dimensional(reference)
    dynamics = Dynamics(reference, bridge.control, bridge.backward_score)
    law = bridge.marginal(0.2)
    steps, errors = [8, 16, 32, 64], []
    for n in steps:
        _, variance, _ = propagate(BACKWARD["heun"], dynamics, torch.linspace(1, 0.2, n + 1), 0.0, 1.0)
        errors.append(variance - float(law.covariance))
    assert abs(order_of(errors, steps) - 2) < 0.25


def test_ddim_converges_on_a_memoryless_reference():
    reference = VPSDE(beta_max=20.0)
    steps = [50, 100, 200, 400]
    ends = [backward_moments(reference, "ddim", n, control=False) for n in steps]
    errors = [variance - 2.0 for _, variance, _ in ends]
    assert abs(errors[-1]) < 0.02
    assert abs(ends[-1][0] - 0.7) < 0.01
    assert order_of(errors, steps) > 0.75


@pytest.mark.parametrize("scheme", STEPWISE)
def test_the_last_step_has_no_noise_and_others_of_sdes_have(scheme):
    reference = VPSDE(beta_max=20.0)
    bridge = one_dimensional(reference)
    dynamics = Dynamics(reference, bridge.control, bridge.backward_score)
    zero = torch.tensor(0.0)
    assert probe_step(BACKWARD[scheme], dynamics, torch.tensor(0.1), zero)[2] == 0.0
    gain = probe_step(BACKWARD[scheme], dynamics, torch.tensor(0.5), torch.tensor(0.4))[2]
    assert (gain == 0) == (scheme in ("heun", "euler", "ddim", "edm_heun"))


@every_reference
def test_one_ancestral_step_from_the_prior_is_the_posterior_mean(reference):
    """From 1 to 0 at once: E[x0 | x1], here from the coupling, on every reference."""
    bridge = one_dimensional(reference)
    slope, offset, gain = probe_step(
        BACKWARD["ancestral"], Dynamics(reference, None, bridge.backward_score), torch.tensor(1.0), torch.tensor(0.0)
    )
    assert slope == pytest.approx(float(bridge.coupling_covariance), rel=1e-9)  # the prior's variance is 1
    assert offset == pytest.approx(0.7, rel=1e-9)
    assert gain == 0


@every_reference
def test_ancestral_noise_is_that_of_the_pinned_bridge(reference):
    """x_{t'} | x0, x_t has the harmonic sum of the two variances, by precisions."""
    bridge = one_dimensional(reference)
    dynamics = Dynamics(reference, None, bridge.backward_score)
    t, t_next = 0.8, 0.5
    gain = probe_step(BACKWARD["ancestral"], dynamics, torch.tensor(t), torch.tensor(t_next))[2]
    _, before = moments(reference, 0.0, t_next)
    kappa, after = moments(reference, t_next, t)
    assert gain**-2 == pytest.approx(1 / before + kappa**2 / after, rel=1e-7)


@every_reference
def test_forward_schemes_without_control_are_the_reference(reference):
    nothing = Dynamics(reference, lambda t, x: torch.zeros_like(x))
    m, tau2 = moments(reference, 0.0, 1.0)
    for scheme in ("exponential", "exponential_heun"):
        mean, variance, covariance = propagate(FORWARD[scheme], nothing, time_grid(5), 0.7, 2.0)
        np.testing.assert_allclose([mean, variance, covariance], [0.7 * m, 2 * m * m + tau2, 2 * m], rtol=1e-8)
    mean, variance, covariance = propagate(FORWARD["euler_maruyama"], nothing, time_grid(400), 0.7, 2.0)
    np.testing.assert_allclose([mean, variance, covariance], [0.7 * m, 2 * m * m + tau2, 2 * m], rtol=0.3)


# paper's kernel, exact control, 19 uniform steps: terminal variance over the prior's, and Euler-Maruyama's at s = 1
VARIANCE_AT_19 = {"euler_maruyama": (1.037, 1.11, 1.19), "exponential": (1.000, 1.042, 1.078)}


@pytest.mark.parametrize("scheme", VARIANCE_AT_19)
def test_discretisation_bias_at_19_steps_is_as_printed(scheme):
    """Terminal variance with the exact control for data variance 1, 10 and 50."""
    for s, printed in zip((1.0, 10.0, 50.0), VARIANCE_AT_19[scheme], strict=True):
        bridge = one_dimensional(VPSDE(), s)
        dynamics = Dynamics(VPSDE(), bridge.control)
        variance = propagate(FORWARD[scheme], dynamics, time_grid(19), 0.7, s)[1]
        assert variance == pytest.approx(printed, abs=0.01)


def test_the_second_order_scheme_at_eight_steps_is_within_one_percent():
    """What the default simulation relies on."""
    for name in ("vp4", "brownian", "linear"):
        assert abs(forward_moments(REFERENCES[name], "exponential_heun", 8, 2.0)[1] - 1) < 0.01


def test_schemes_name_the_field_that_they_miss():
    x, noise = torch.zeros(1, 1), lambda: torch.zeros(1, 1)
    a, b = torch.tensor(0.5), torch.tensor(0.4)
    empty = Dynamics(VPSDE())
    for scheme in FORWARD.values():
        with pytest.raises(ValueError, match="control"):
            scheme(empty, b, a, x, noise)
    for name in STEPWISE:
        with pytest.raises(ValueError, match="backward score"):
            BACKWARD[name](empty, a, b, x, noise)
    for name in ("euler", "heun"):  # the flow of a bridge needs both
        with pytest.raises(ValueError, match=f"the {name} scheme needs the control"):
            BACKWARD[name](Dynamics(VPSDE(), None, lambda t, x: x), a, b, x, noise)
    with pytest.raises(ValueError, match="one_step scheme needs a generator"):
        BACKWARD["one_step"](empty, torch.tensor(1.0), torch.tensor(0.0), x, noise)


def test_heun_without_control_is_the_flow_of_a_memoryless_reference():
    reference = VPSDE(beta_max=20.0)
    score = one_dimensional(reference).backward_score
    a, b = torch.tensor(0.5), torch.tensor(0.4)
    without = probe_step(BACKWARD["heun"], Dynamics(reference, None, score), a, b)
    nothing = probe_step(BACKWARD["heun"], Dynamics(reference, lambda t, x: 0 * x, score), a, b)
    assert without == pytest.approx(nothing)


def test_integrate_keeps_the_trajectory_and_its_noise_is_addressed_by_row():
    bridge = one_dimensional(VPSDE())
    dynamics = Dynamics(VPSDE(), bridge.control, bridge.backward_score)
    times, stream = node_times("trailing_uniform", 5), Stream(0, ("noise",))
    x = torch.linspace(-2, 2, 600)[:, None]
    end, path = integrate(BACKWARD["ancestral"], dynamics, times, x, range(600), stream, keep=True)
    assert path.shape == (6, 600, 1)
    assert torch.equal(path[0], x)
    assert torch.equal(path[-1], end)
    part, _ = integrate(BACKWARD["ancestral"], dynamics, times, x[100:400], range(100, 400), stream)
    assert torch.equal(part, end[100:400])


# generated variance over the data's at 10, 20, 50 and 100 uniform steps, with exact scores
GENERATED = [
    ("euler_maruyama", 4.0, 0.01, (0.54, 0.22, 0.79, 0.92)),
    ("euler_maruyama", 20.0, 0.01, (23, 1.49, 0.36, 0.80)),
    ("euler_maruyama", 4.0, 0.05, (0.38, 0.81, 0.96, 0.99)),
    ("euler_maruyama", 4.0, 220.0, (1.13, 1.06, 1.02, 1.01)),
]


@pytest.mark.parametrize(("scheme", "beta_max", "s", "printed"), GENERATED)
def test_generated_variance_at_few_steps_is_as_printed(scheme, beta_max, s, printed):
    reference = VPSDE(beta_max=beta_max)
    bridge = one_dimensional(reference, s)
    dynamics = Dynamics(reference, None, bridge.backward_score)
    for num_steps, wanted in zip((10, 20, 50, 100), printed, strict=True):
        times = node_times("trailing_uniform", num_steps)
        variance = propagate(BACKWARD[scheme], dynamics, times, 0.0, 1.0)[1]
        assert variance / s == pytest.approx(wanted, rel=0.02, abs=0.006)
