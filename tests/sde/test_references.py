"""Every reference's closed forms against its moment ODEs, and bridges against numerical conditioning."""

import math

import numpy as np
import pytest
import torch

from sbbridge.config import ConfigurationError, parse
from sbbridge.sde import (
    VESDE,
    VPSDE,
    BrownianMotion,
    ControlledSDE,
    LinearSDE,
    ProbabilityFlowODE,
    Reference,
    ReverseSDE,
)
from tests.oracles import REFERENCES, bridge_law, moments

pytestmark = pytest.mark.usefixtures("float64")
every_reference = pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())
INTERVALS = [(0.0, 0.01), (0.0, 0.3), (0.0, 1.0), (0.2, 0.7), (0.4, 1.0), (0.95, 1.0)]


@every_reference
def test_transition_moments_solve_their_odes(reference):
    for s, t in INTERVALS:
        kappa, variance = moments(reference, s, t)
        assert float(reference.mean_factor(s, t)) == pytest.approx(kappa, rel=1e-8)
        assert float(reference.variance(s, t)) == pytest.approx(variance, rel=1e-8)


@every_reference
def test_drift_and_diffusion_are_the_rates_of_the_transition(reference):
    """The other way round, by difference quotients: f = d log kappa / dt, g^2 = dV(t, t + h) / dh at 0."""
    h = 1e-6
    for t in (0.1, 0.5, 0.9):
        assert float(reference.mean_factor(t, t + h)) == pytest.approx(
            1 + h * float(reference.drift_coefficient(t)), abs=1e-9
        )
        assert float(reference.variance(t, t + h)) / h == pytest.approx(float(reference.diffusion(t)) ** 2, rel=1e-4)


@every_reference
def test_transitions_form_a_semigroup(reference):
    """s -> t -> r in two steps is s -> r in one: factors multiply, variances add up."""
    for s, t, r in ((0.0, 0.3, 1.0), (0.1, 0.5, 0.6), (0.0, 0.999, 1.0)):
        k1, k2 = reference.mean_factor(s, t), reference.mean_factor(t, r)
        assert float(k1 * k2) == pytest.approx(float(reference.mean_factor(s, r)), rel=1e-12)
        variance = k2**2 * reference.variance(s, t) + reference.variance(t, r)
        assert float(variance) == pytest.approx(float(reference.variance(s, r)), rel=1e-12)


@every_reference
def test_no_time_changes_nothing(reference):
    x = torch.tensor([[1.0, -2.0]])
    for t in (0.0, 0.4, 1.0):
        assert torch.equal(reference.transition(t, t, x, torch.ones_like(x)), x)


@every_reference
def test_bridge_is_gaussian_conditioning(reference):
    for t, start, end in ((0.3, 0.0, 1.0), (0.9, 0.0, 1.0), (0.4, 0.1, 0.8), (0.05, 0.0, 0.1)):
        wanted = bridge_law(reference, t, start, end)
        got = [float(c) for c in reference.bridge_coefficients(t, start, end)]
        np.testing.assert_allclose(got, wanted, rtol=1e-7, atol=1e-10)


@every_reference
def test_bridge_is_pinned_at_both_ends(reference):
    x0, x1 = torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 0.5]])
    noise = torch.full_like(x0, 5.0)
    for t, pinned in ((0.0, x0), (1.0, x1)):
        np.testing.assert_allclose(reference.bridge(torch.tensor([t]), x0, x1, noise), pinned, atol=1e-7)


@every_reference
def test_bridge_of_reference_pairs_has_the_reference_marginal(reference):
    """Averaging the bridge over x1 | x0 gives back x_t | x0: means and variances as identities."""
    m, tau2 = moments(reference, 0.0, 1.0)
    for t in (0.1, 0.5, 0.9):
        kappa, variance = moments(reference, 0.0, t)
        a, b, v = (float(c) for c in reference.bridge_coefficients(t))
        assert a + b * m == pytest.approx(kappa, rel=1e-8)
        assert b * b * tau2 + v == pytest.approx(variance, rel=1e-8)


@every_reference
def test_adjoint_factor_is_autograds_through_the_drift(reference):
    """d x_1 / d x_t through 1,000 midpoint steps of dx = f dt."""
    for t in (0.0, 0.35):
        x = start = torch.tensor([[1.7]], requires_grad=True)
        steps = 1000
        dt = (1 - t) / steps
        for i in range(steps):
            now = torch.tensor(t + i * dt)
            middle = x + 0.5 * dt * reference.drift(now, x)
            x = x + dt * reference.drift(now + 0.5 * dt, middle)
        (gradient,) = torch.autograd.grad(x.sum(), start)
        assert float(reference.adjoint_factor(t)) == pytest.approx(float(gradient), rel=1e-4)


@every_reference
def test_log_snr_is_signal_over_noise_and_falls(reference):
    kappa, variance = moments(reference, 0.0, 0.6)
    assert float(reference.log_snr(0.6)) == pytest.approx(math.log(kappa**2 / variance), rel=1e-8)
    assert (reference.log_snr(torch.linspace(0.001, 1, 100)).diff() < 0).all()


@every_reference
def test_times_may_be_numbers_or_one_for_every_row(reference):
    t = torch.tensor([0.1, 0.4, 0.8])
    for function in (reference.drift_coefficient, reference.diffusion, reference.log_snr, reference.adjoint_factor):
        together = function(t)
        assert together.shape == (3,)
        assert together.dtype == torch.float64
        np.testing.assert_allclose(together, [float(function(float(s))) for s in t], rtol=1e-14)
    for function in (reference.mean_factor, reference.variance):
        np.testing.assert_allclose(function(0.05, t), [float(function(0.05, float(s))) for s in t], rtol=1e-14)


@every_reference
def test_simulated_transitions_have_the_odes_moments(reference):
    """n = 50,000: mean and variance each within 5 standard errors, a false alarm below 1e-6."""
    n, x0 = 50_000, 1.4
    noise = torch.randn(n, 1, generator=torch.Generator().manual_seed(4))
    x = reference.transition(torch.tensor(0.2), torch.tensor(0.9), torch.full((n, 1), x0), noise)
    kappa, variance = moments(reference, 0.2, 0.9)
    assert abs(float(x.mean()) - kappa * x0) < 5 * (variance / n) ** 0.5
    assert abs(float(x.var()) / variance - 1) < 5 * (2 / n) ** 0.5


# beta_max: (m, tau^2) as printed, beta_min = 0.1, sigma = 1
MEMORY = {
    0.5: (".861", ".259"),
    1.0: (".760", ".423"),
    2.0: (".592", ".650"),
    4.0: (".3588", ".8713"),
    6.0: (".2176", ".953"),
    8.0: (".1320", ".983"),
    12.0: (".0486", ".998"),
    16.0: (".0179", ".9997"),
    20.0: (".00657", ".99996"),
}


@pytest.mark.parametrize("beta_max", MEMORY)
def test_memory_of_the_vp_process_is_as_printed(beta_max):
    reference = VPSDE(0.1, beta_max)
    for value, printed in zip((reference.retained_memory, reference.terminal_variance), MEMORY[beta_max], strict=True):
        digits = len(printed) - 1
        assert value == pytest.approx(float(printed), abs=0.51 * 10**-digits)


def test_linear_sde_ends_where_vp4_ends():
    linear, vp = LinearSDE(), VPSDE(0.1, 4.0)
    assert linear.retained_memory == pytest.approx(vp.retained_memory, abs=1e-6)
    assert linear.terminal_variance == pytest.approx(vp.terminal_variance, abs=1e-6)
    assert float(linear.mean_factor(0.0, 0.5)) != pytest.approx(float(vp.mean_factor(0.0, 0.5)), abs=1e-2)


def test_linear_sde_is_linear_in_time():
    reference, t = LinearSDE(decay=0.3, sigma=1.2), torch.linspace(0, 1, 5)
    assert reference.mean_factor(0.0, t).diff().diff().abs().max() < 1e-14
    assert reference.variance(0.0, t).diff().diff().abs().max() < 1e-14
    assert reference.retained_memory == pytest.approx(0.7)
    assert reference.terminal_variance == pytest.approx(1.44)


def test_constant_vp_keeps_the_end_point_kernel_of_the_linear_one():
    linear, constant = VPSDE(0.2, 7.0), VPSDE(0.2, 7.0, schedule="constant")
    assert constant.retained_memory == pytest.approx(linear.retained_memory, rel=1e-12)
    assert constant.terminal_variance == pytest.approx(linear.terminal_variance, rel=1e-12)
    assert constant.beta(torch.tensor([0.1, 0.9])).diff().item() == 0


def test_ve_noise_grows_geometrically_from_zero():
    reference = VESDE(sigma_min=0.1, sigma_max=10.0)
    assert float(reference.variance(0.0, 0.5)) == pytest.approx(1.0 - 0.01, rel=1e-12)
    assert reference.terminal_variance == pytest.approx(100 - 0.01, rel=1e-12)
    assert reference.retained_memory == 1.0


def test_vp_keeps_its_stationary_variance():
    reference = VPSDE(sigma=1.7)
    kappa, variance = reference.mean_factor(0.0, 0.6), reference.variance(0.0, 0.6)
    assert float(kappa**2 * 1.7**2 + variance) == pytest.approx(1.7**2, rel=1e-12)


def test_memoryless_means_uncorrelated_ends():
    assert VPSDE(beta_max=20.0).is_memoryless()
    assert not VPSDE(beta_max=4.0).is_memoryless()
    assert VPSDE(beta_max=12.0).is_memoryless(0.05)
    assert not VPSDE(beta_max=12.0).is_memoryless()
    assert VESDE(sigma_max=200.0).is_memoryless()
    assert not VESDE(sigma_max=50.0).is_memoryless()
    assert not BrownianMotion(1.0).is_memoryless(0.7)
    assert BrownianMotion(1.0).is_memoryless(0.71)  # correlation 1 / sqrt(2)


@pytest.mark.parametrize(
    ("build", "field"),
    [
        (lambda: VPSDE(beta_min=-0.1), "beta_min"),
        (lambda: VPSDE(beta_min=0, beta_max=0), "beta_max"),
        (lambda: VPSDE(beta_min=5.0, beta_max=4.0), "beta_max"),
        (lambda: VPSDE(sigma=0.0), "sigma"),
        (lambda: BrownianMotion(sigma=-1.0), "sigma"),
        (lambda: VESDE(sigma_min=0.0), "sigma_min"),
        (lambda: VESDE(sigma_min=1.0, sigma_max=0.5), "sigma_max"),
        (lambda: LinearSDE(decay=1.0), "decay"),
        (lambda: LinearSDE(decay=-0.1), "decay"),
        (lambda: LinearSDE(sigma=0.0), "sigma"),
        (lambda: VPSDE(sigma=math.nan), "sigma"),
        (lambda: VPSDE(beta_max=math.nan), "beta_max"),
    ],
)
def test_impossible_values_are_refused_by_name(build, field):
    with pytest.raises(ValueError, match=f"^{field} must be"):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: VPSDE(beta_max=math.inf),
        lambda: VPSDE(sigma=math.inf),
        lambda: BrownianMotion(math.inf),
        lambda: VESDE(sigma_max=math.inf),
        lambda: LinearSDE(sigma=math.inf),
    ],
)
def test_infinite_values_are_refused(build):
    with pytest.raises(ValueError, match="must be"):
        build()


def test_impossible_values_in_a_configuration_name_the_field():
    with pytest.raises(ConfigurationError, match="sigma must be > 0, got -1"):
        parse(Reference, {"kind": "brownian", "sigma": -1.0})


@every_reference
def test_controlled_reversed_and_flow_drifts_are_made_of_the_same_parts(reference):
    """(forward drift + backward drift) / 2 is the velocity of the flow, and without fields all are the reference."""
    x, t = torch.tensor([[0.7, -1.0]]), torch.tensor(0.4)
    control, score = (lambda t, x: 0.3 * x + 1), (lambda t, x: -1.2 * x)
    forward, backward = ControlledSDE(reference, control), ReverseSDE(reference, score)
    flow = ProbabilityFlowODE(reference, control, score)
    np.testing.assert_allclose((forward.drift(t, x) + backward.drift(t, x)) / 2, flow.velocity(t, x), atol=1e-12)
    nothing = lambda t, x: torch.zeros_like(x)  # noqa: E731
    for drift in (
        ControlledSDE(reference, nothing).drift,
        ReverseSDE(reference, nothing).drift,
        ProbabilityFlowODE(reference, nothing, nothing).velocity,
    ):
        np.testing.assert_allclose(drift(t, x), reference.drift(t, x), atol=1e-14)


def test_flow_of_a_memoryless_reference_carries_a_gaussian_along_its_marginals():
    """dx/dt = f x - g^2 score / 2 keeps x standard relative to the marginal: z = (x - mean_t) / std_t does not move."""
    from scipy.integrate import solve_ivp

    reference, mean0, var0 = VPSDE(beta_max=20.0), 0.8, 2.5

    def marginal(t):
        k, v = moments(reference, 0.0, t) if t else (1.0, 0.0)
        return k * mean0, k * k * var0 + v

    def score(t, x):
        mean, var = marginal(float(t))
        return -(x - mean) / var

    flow = ProbabilityFlowODE(reference, lambda t, x: torch.zeros_like(x), score)
    start = mean0 + 1.3 * var0**0.5
    path = solve_ivp(
        lambda t, y: flow.velocity(torch.tensor(t), torch.tensor(y)[None])[0].numpy(),
        (0, 1),
        [start],
        rtol=1e-6,
        atol=1e-8,
    )
    mean, var = marginal(1.0)
    assert (path.y[0, -1] - mean) / var**0.5 == pytest.approx(1.3, abs=1e-4)
