"""Regressions of flows and of single steps, solved exactly on sigma points; the direction of distillation."""

import numpy as np
import pytest
import torch

from sbbridge import objectives
from sbbridge.sde import BrownianMotion
from sbbridge.solvers import BACKWARD, FORWARD, Dynamics, time_grid
from tests.checks import (
    check_distillation_direction,
    check_flow_matching,
    check_full_target,
    check_mean_matching,
    exact_batch,
    field_of,
    least_squares,
    moved_generator,
    one_dimensional,
    propagate,
    steps_of,
    tensor,
)
from tests.oracles import REFERENCES, random_gaussian

pytestmark = pytest.mark.usefixtures("float64")
every_reference = pytest.mark.parametrize("reference", REFERENCES.values(), ids=REFERENCES.keys())


def test_flow_matching_gives_the_mean_displacement_of_any_coupling():
    check_flow_matching()


@pytest.mark.parametrize("simplified", [False, True], ids=["dsb", "simplified"])
@pytest.mark.parametrize("way", ["backward", "forward"])
@every_reference
def test_mean_matching_on_steps_of_the_bridge_converges_to_the_other_ways_field(reference, way, simplified):
    check_mean_matching(reference, way, simplified)


@every_reference
def test_the_full_targets_add_the_change_of_the_other_drift(reference):
    check_full_target(reference)


@pytest.mark.parametrize("t", [0.1, 0.4, 0.9])
@every_reference
def test_the_weight_of_mean_matching_gives_residuals_of_unit_variance(reference, t):
    """So that no time dominates the loss: per dimension it is 1 at the exact field, up to O(dt)."""
    dt, oracle = 1e-3, random_gaussian(24, 2, reference)
    times = [torch.full((8,), time) for time in (t, t + dt)]
    x, x_next = steps_of(oracle, t, dt, "forward")
    loss = objectives.backward_mean_matching(reference, *times, x, x_next, field_of(oracle.control)).loss(
        tensor(oracle.backward_score(t + dt, x_next.numpy()))
    )
    assert float(loss) == pytest.approx(1.0, abs=0.05)
    x, x_next = steps_of(oracle, t, dt, "backward")
    loss = objectives.forward_mean_matching(reference, *times, x, x_next, field_of(oracle.backward_score)).loss(
        tensor(oracle.control(t, x.numpy()))
    )
    assert float(loss) == pytest.approx(1.0, abs=0.05)


def test_the_first_backward_fit_is_the_score_of_the_uncontrolled_reference():
    """Without a control the forward process is Brownian motion: ∇log phihat is the score of N(mean, cov + t)."""
    oracle, t, dt = random_gaussian(25, 2, BrownianMotion()), 0.5, 1e-4
    spread = oracle.cov0 + t * torch.eye(2).numpy()
    y = (
        tensor(oracle.mean0)
        + torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)) @ torch.linalg.cholesky(tensor(spread)).mT
    )
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    times = [torch.full((len(y),), time) for time in (t, t + dt)]
    regression = objectives.backward_mean_matching(BrownianMotion(), *times, y, y + dt**0.5 * noise, None)
    features = torch.column_stack([regression.x, torch.ones(len(y))])
    solved = torch.linalg.lstsq(features, regression.target).solution
    wanted = -torch.linalg.inv(tensor(spread))
    # the target's noise is 1 / sqrt(dt) = 100: 5 standard errors of the slope
    assert (solved[:2] - wanted).abs().max() < 5 * 100 / 200_000**0.5 / float(
        torch.linalg.eigvalsh(tensor(spread))[0]
    ) ** 0.5


def affine(regression):
    """(slope, offset) of the regression's solution; d = 1."""
    ends = least_squares(regression)(np.array([[0.0], [1.0]]))[:, 0]
    return ends[1] - ends[0], ends[0]


def tabulated(times, rows):
    """The field whose slope and offset at each of the times is a row."""

    def field(t, x):
        slope, offset = rows.get(int((times - t.flatten()[0]).abs().argmin()), (0.0, 0.0))
        return slope * x + offset

    return field


def half(reference, times, start, field, simplified, backward):
    """One fit of an iteration, every step solved exactly: the other process's fields, and where its paths end."""
    (mean, variance), n, rows = start, len(times) - 1, {}
    name = "control" if backward else "backward_score"
    dynamics = Dynamics(reference, **{name: field})
    step = FORWARD["euler_maruyama"] if backward else BACKWARD["euler_maruyama"]
    fit = objectives.backward_mean_matching if backward else objectives.forward_mean_matching
    for k in range(n) if backward else reversed(range(n)):
        here, there = (k, k + 1) if backward else (k + 1, k)
        now, noise = exact_batch(np.array([mean]), np.array([[variance]]), 1, 1)
        # not quite to 0, where the last step would leave its noise out
        moved = step(dynamics, times[here], times[there].clamp(min=1e-9), now, lambda noise=noise: noise)
        pair = (now, moved) if backward else (moved, now)
        t, t_next = (torch.full((len(now),), float(time)) for time in (times[k], times[k + 1]))
        rows[there] = affine(fit(reference, t, t_next, *pair, None if simplified else field))
        mean, variance = float(moved.mean()), float(moved.var(correction=0))
    return tabulated(times, rows), (mean, variance)


@pytest.mark.parametrize("simplified", [False, True], ids=["dsb", "simplified"])
def test_iterations_that_are_solved_exactly_converge_to_the_bridge_as_steps_shrink(simplified):
    """Both ends' variances and Cov(x0, x1), extrapolated from 16 and 32 steps, against the closed form: 4 %."""
    reference, ends = REFERENCES["vp4"], {}
    for n in (8, 16, 32):
        times, control = time_grid(n), lambda t, x: torch.zeros_like(x)
        for _ in range(6):
            score, (_, variance1) = half(reference, times, (0.7, 2.0), control, simplified, backward=True)
            control, (mean0, variance0) = half(reference, times, (0.0, 1.0), score, simplified, backward=False)
        moved = propagate(FORWARD["euler_maruyama"], Dynamics(reference, control), times, 0.7, 2.0)
        ends[n] = np.array([mean0, variance0, variance1, moved[2]])
    exact = np.array([0.7, 2.0, 1.0, float(one_dimensional(reference).coupling_covariance)])
    np.testing.assert_allclose(2 * ends[32] - ends[16], exact, rtol=0.04)
    errors = [np.abs(ends[n] - exact).max() for n in (8, 16, 32)]
    assert errors[0] > 1.5 * errors[1] > 1.5**2 * errors[2], "of first order in the step"


def test_path_objectives_accept_images_and_keep_single_precision():
    reference = REFERENCES["vp4"]
    x = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    t = torch.linspace(0.1, 0.8, 4, dtype=torch.float64)
    for other in (None, lambda t, x: -x):
        for regression in (
            objectives.flow_matching(t, x, x),
            objectives.backward_mean_matching(reference, t, t + 0.1, x, x, other),
            objectives.forward_mean_matching(reference, t, t + 0.1, x, x, other),
        ):
            assert regression.x.shape == regression.target.shape == x.shape
            assert regression.x.dtype == regression.target.dtype == torch.float32
            assert regression.loss(torch.zeros_like(x)).dtype == torch.float32


@pytest.mark.parametrize("student", ["flow", "bridge"])
@pytest.mark.parametrize("weight", ["normalised", "bridge"])
def test_distillation_moves_the_generator_towards_the_data(weight, student):
    check_distillation_direction(weight, student)


@pytest.mark.parametrize("student", ["flow", "bridge"])
@pytest.mark.parametrize("weight", ["normalised", "bridge"])
def test_a_generator_that_has_the_datas_law_is_not_moved(weight, student):
    moved = moved_generator(0.0, 1.0, weight, student)
    assert max(map(abs, moved)) < 1e-9
