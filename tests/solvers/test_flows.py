"""Deterministic schemes and DDIM's family on Gaussians, where the flow's map is known without integrating it."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from sbbridge.path import LINEAR, node_times
from sbbridge.sde import VESDE, VPSDE, BrownianMotion, LinearSDE
from sbbridge.solvers import BACKWARD, Dynamics, denoise
from tests.checks import (
    check_ddim_keeps_the_noise,
    check_second_order_backward,
    known_value,
    one_dimensional,
    order_of,
    probe_step,
    propagate,
)
from tests.oracles import moments

pytestmark = pytest.mark.usefixtures("float64")
SMOOTH = {"vp4": VPSDE(), "brownian": BrownianMotion(), "linear": LinearSDE()}
smooth_reference = pytest.mark.parametrize("reference", SMOOTH.values(), ids=SMOOTH.keys())
MEMORYLESS = {"vp20": VPSDE(beta_max=20.0), "vp14_wide": VPSDE(beta_max=14.0, sigma=1.5), "ve": VESDE(sigma_max=30.0)}
memoryless_reference = pytest.mark.parametrize("reference", MEMORYLESS.values(), ids=MEMORYLESS.keys())
MEAN, VARIANCE = 0.7, 2.0


def straight_flow():
    """The exact velocity between N(0.7, 2) and N(0, 1), independently paired, along straight lines."""
    return Dynamics(VPSDE(), velocity=lambda t, x: known_value("flow", VPSDE(), MEAN, VARIANCE)(t.expand(len(x)), x))


def flow_map(t):
    """(slope, offset) of the flow from 1 to t: it carries Gaussians to Gaussians, in one dimension by their spreads."""
    mean, variance = (1 - t) * MEAN, (1 - t) ** 2 * VARIANCE + t * t
    return variance**0.5, mean


def ends(scheme, dynamics, times):
    """(slope, offset) of the whole integration."""
    slope, offset = 1.0, 0.0
    for t, t_next in pairwise(times):
        a, b, gain = probe_step(BACKWARD[scheme], dynamics, t, t_next)
        assert gain == 0
        slope, offset = a * slope, a * offset + b
    return slope, offset


@pytest.mark.parametrize(("scheme", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("edm_heun", 2)])
def test_flows_along_straight_lines_converge_to_the_map_between_gaussians(scheme, order):
    """Between 0.9 and 0.1, where every scheme's variables are smooth."""
    steps, errors = [8, 16, 32, 64], []
    (late, late_offset), (early, early_offset) = flow_map(0.9), flow_map(0.1)
    slope, offset = early / late, early_offset - early / late * late_offset
    for n in steps:
        made = ends(scheme, straight_flow(), torch.linspace(0.9, 0.1, n + 1))
        errors.append(abs(made[0] - slope) + abs(made[1] - offset))
    assert errors[-1] < 0.03
    assert order_of(errors, steps) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("scheme", ["euler", "heun", "edm_heun", "ddim"])
def test_flows_carry_the_prior_to_the_data(scheme):
    slope, offset = ends(scheme, straight_flow(), node_times("trailing_uniform", 100))
    assert slope == pytest.approx(VARIANCE**0.5, rel=0.02)
    assert offset == pytest.approx(MEAN, abs=0.02)


def test_ddim_on_straight_lines_is_eulers_method():
    dynamics = straight_flow()
    for t, t_next in ((1.0, 0.8), (0.5, 0.2), (0.3, 0.0)):
        one, other = (
            probe_step(BACKWARD[name], dynamics, torch.tensor(t), torch.tensor(t_next)) for name in ("euler", "ddim")
        )
        assert one == pytest.approx(other, abs=1e-12)


def test_edm_begins_straight_lines_with_ddims_step():
    """Its sigma is infinite at t = 1."""
    one, other = (
        probe_step(BACKWARD[name], straight_flow(), torch.tensor(1.0), torch.tensor(0.7))
        for name in ("ddim", "edm_heun")
    )
    assert one == pytest.approx(other, abs=1e-12)


@smooth_reference
def test_euler_on_the_flow_of_a_bridge_has_order_one(reference):
    bridge = one_dimensional(reference)
    dynamics = Dynamics(reference, bridge.control, bridge.backward_score)
    steps, errors = [32, 64, 128, 256], []
    for n in steps:
        mean, variance, _ = propagate(BACKWARD["euler"], dynamics, node_times("trailing_uniform", n), 0.0, 1.0)
        errors.append(abs(variance - VARIANCE))
    assert errors[-1] < 0.05
    assert abs(mean - MEAN) < 0.01
    assert order_of(errors, steps) == pytest.approx(1, abs=0.25)


@memoryless_reference
@pytest.mark.parametrize(("scheme", "order"), [("ddim", 1), ("edm_heun", 2)])
def test_schemes_of_denoisers_have_their_order_on_memoryless_references(reference, scheme, order):
    """Between interior times; the score is that of noised data, whose flow is known."""
    steps, errors = [16, 32, 64, 128], []
    late, early = 0.8, 0.2

    def score(t, x):
        k, v = reference.mean_factor(0.0, t), reference.variance(0.0, t)
        return -(x - k * MEAN) / (k * k * VARIANCE + v)

    (k1, v1), (k0, v0) = moments(reference, 0.0, late), moments(reference, 0.0, early)
    slope = ((k0 * k0 * VARIANCE + v0) / (k1 * k1 * VARIANCE + v1)) ** 0.5
    offset = k0 * MEAN - slope * k1 * MEAN
    for n in steps:
        made = ends(scheme, Dynamics(reference, None, score), torch.linspace(late, early, n + 1))
        errors.append(abs(made[0] - slope) + abs(made[1] - offset))
    assert errors[-1] < 0.02 * (slope + abs(offset))
    assert order_of(errors, steps) == pytest.approx(order, abs=0.3)


@smooth_reference
def test_the_second_order_exponential_scheme_has_weak_order_two_backward(reference):
    check_second_order_backward(reference)


@memoryless_reference
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_ddim_keeps_the_law_of_noised_data_and_draws_the_noise_it_was_asked_for(reference, eta):
    check_ddim_keeps_the_noise(reference, eta)


@memoryless_reference
def test_ddim_with_all_its_noise_is_ancestral_sampling(reference):
    """Slope, offset and noise of a step, with the exact score of data."""
    from sbbridge.solvers import ddim

    bridge = one_dimensional(reference)
    dynamics = Dynamics(reference, None, bridge.backward_score)
    for t, t_next in ((1.0, 0.7), (0.5, 0.3), (0.2, 0.0)):
        times = torch.tensor(t), torch.tensor(t_next)
        ancestral = probe_step(BACKWARD["ancestral"], dynamics, *times)
        noisy = probe_step(lambda *args: ddim.backward(*args, eta=1.0), dynamics, *times)
        assert noisy == pytest.approx(ancestral, abs=1e-9)


def test_denoising_is_the_conditional_mean_of_the_data():
    """Along straight lines and under a memoryless reference, against Cov(x0, x_t) / Var(x_t)."""
    t, x = torch.tensor(0.6), torch.linspace(-2, 2, 5)[:, None]
    gain = 0.4 * VARIANCE / (0.4**2 * VARIANCE + 0.6**2)
    wanted = MEAN + gain * (x - 0.4 * MEAN)
    np.testing.assert_allclose(denoise(straight_flow(), t, x), wanted, atol=1e-9)
    assert float(LINEAR.mean(t)) == pytest.approx(0.4)
    reference = MEMORYLESS["vp20"]
    k, v = moments(reference, 0.0, 0.3)
    bridge = one_dimensional(reference)
    made = denoise(Dynamics(reference, None, bridge.backward_score), torch.tensor(0.3), x)
    wanted = MEAN + k * VARIANCE / (k * k * VARIANCE + v) * (x - k * MEAN)
    np.testing.assert_allclose(made, wanted, atol=0.02)  # the bridge remembers 0.7 % of its start


@pytest.mark.parametrize("scheme", ["ddim", "edm_heun"])
def test_schemes_of_denoisers_refuse_references_with_memory(scheme):
    bridge = one_dimensional(VPSDE())
    dynamics = Dynamics(VPSDE(), bridge.control, bridge.backward_score)
    with pytest.raises(ValueError, match=rf"{scheme} needs a memoryless reference, this one retains m = 0\.359"):
        BACKWARD[scheme](dynamics, torch.tensor(0.5), torch.tensor(0.4), torch.zeros(1, 1), lambda: torch.zeros(1, 1))


def test_a_generator_makes_its_one_step_and_no_other():
    dynamics = Dynamics(VPSDE(), generator=lambda t, x: 3 * x + t)
    x = torch.ones(2, 1)
    assert torch.equal(BACKWARD["one_step"](dynamics, torch.tensor(1.0), torch.tensor(0.0), x, None), 4 * x)
    with pytest.raises(ValueError, match="one_step scheme takes num_steps = 1"):
        BACKWARD["one_step"](dynamics, torch.tensor(1.0), torch.tensor(0.5), x, None)
