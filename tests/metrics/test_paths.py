"""Cost, straightness and variance of known curves."""

import math

import pytest
import torch

from sbbridge.metrics import (
    accumulated_drift,
    accumulated_length,
    straightness,
    straightness_per_path,
    trajectory_variance,
    trajectory_variance_per_path,
    transport_cost,
)
from sbbridge.problems import GaussianBridge
from sbbridge.sde import VPSDE, BrownianMotion
from sbbridge.solvers import Dynamics, time_grid


def curve(bend: float, steps: int, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """x(t) = x0 + t D + bend sin(π t) e, with |D| = |e| = 1, D ⟂ e, from t = 1 to 0 as samplers go."""
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    straight, sideways = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    start = torch.arange(batch, dtype=torch.float64)[:, None].expand(batch, 2)
    t = times[:, None, None]
    return start + t * straight + bend * torch.sin(math.pi * t) * sideways, times


def test_straight_lines_at_constant_speed_are_straight():
    path, times = curve(0.0, 7)
    assert straightness(path, times) == pytest.approx(0, abs=1e-20)
    assert trajectory_variance(path, times) == pytest.approx(0, abs=1e-20)


def test_straight_lines_on_uneven_times_are_straight():
    times = torch.tensor([1.0, 0.7, 0.69, 0.1, 0.0], dtype=torch.float64)
    path = times[:, None, None] * torch.ones(1, 4, 3, dtype=torch.float64)
    assert straightness(path, times) == pytest.approx(0, abs=1e-20)
    assert trajectory_variance(path, times) == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("bend", [0.5, 2.0])
def test_a_sine_beside_the_line(bend):
    """∫ (b π cos πt)² dt = b² π² / 2, and ∫ (b sin πt)² dt = b² / 2, over |D|² = 1."""
    path, times = curve(bend, 2000)
    assert straightness(path, times) == pytest.approx(bend**2 * math.pi**2 / 2, rel=1e-5)
    assert trajectory_variance(path, times) == pytest.approx(bend**2 / 2, rel=1e-5)


def test_a_straight_line_at_uneven_speed_is_not_straight():
    """x = t²: ∫ (1 − 2t)² dt = 1/3, and ∫ (t² − t)² dt = 1/30."""
    times = torch.linspace(0, 1, 2001, dtype=torch.float64)
    path = (times**2)[:, None, None].expand(-1, 2, 1)
    assert straightness(path, times) == pytest.approx(1 / 3, rel=1e-5)
    assert trajectory_variance(path, times) == pytest.approx(1 / 30, rel=1e-5)


def test_the_direction_of_time_and_the_scale_do_not_matter():
    path, times = curve(1.0, 50)
    for measure in (straightness, trajectory_variance):
        value = measure(path, times)
        assert measure(path.flip(0), times.flip(0)) == pytest.approx(value, rel=1e-12)
        assert measure(10 * path, times) == pytest.approx(value, rel=1e-12)
        assert measure(path.unflatten(2, (1, 2)), times) == pytest.approx(value, rel=1e-12)


def test_transport_cost_sums_over_the_state():
    x0 = torch.zeros(5, 1, 2, 2)
    assert transport_cost(x0, x0 + 3) == pytest.approx(36)


def test_each_path_has_its_own_value_and_the_mean_is_the_whole_sets():
    bends = (0.0, 0.5, 2.0)
    paths = [curve(bend, 2000, batch=2) for bend in bends]
    path, times = torch.cat([p for p, _ in paths], dim=1), paths[0][1]
    wanted = torch.tensor(bends).repeat_interleave(2).double() ** 2 / 2
    torch.testing.assert_close(trajectory_variance_per_path(path, times), wanted, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(straightness_per_path(path, times), math.pi**2 * wanted, rtol=1e-5, atol=1e-12)
    assert straightness(path, times) == pytest.approx(math.pi**2 * float(wanted.mean()), rel=1e-5)
    assert trajectory_variance(path, times) == pytest.approx(float(wanted.mean()), rel=1e-5)


def test_paths_share_one_displacement():
    """A short path is not blown up by its own length: both deviate by the same, whatever their ends."""
    path, times = curve(1.0, 100, batch=2)
    path = torch.stack([path[:, 0], path[:, 1] * torch.tensor([3.0, 1.0])], dim=1)  # displacements 1 and 3
    assert trajectory_variance_per_path(path, times).tolist() == pytest.approx([0.5 / 5] * 2, rel=1e-3)


def test_the_length_of_a_quarter_circle():
    angle = torch.linspace(0, math.pi / 2, 1001, dtype=torch.float64)[:, None]
    radii = torch.tensor([1.0, 3.0])
    path = torch.stack([radii * angle.cos(), radii * angle.sin()], dim=2)
    length = accumulated_length(path)
    assert length.shape == (1001,)
    assert length[0] == 0
    assert float(length[500]) == pytest.approx(math.pi / 2, rel=1e-5)
    assert float(length[-1]) == pytest.approx(math.pi, rel=1e-5)


class TestAccumulatedDrift:
    @pytest.mark.parametrize("reference", [BrownianMotion(sigma=1.3), VPSDE(beta_min=0.1, beta_max=4.0)])
    def test_on_a_gaussian_bridge_it_is_the_relative_entropy(self, reference):
        """E KL(x_t | x0 to the reference's kernel), in closed form at every t; n = 40,000."""
        problem = GaussianBridge(0.7, 0.5, -1.0, 2.0, reference)
        x0 = problem.data.sample(40_000, seed=1)
        times = time_grid(64, power=2.0)
        found = accumulated_drift(Dynamics(reference, problem.control), x0, times, seed=2)
        assert found.shape == (65,)
        assert found[0] == 0
        assert (found.diff() >= 0).all()
        for k in (24, 40, 64):
            assert float(found[k]) == pytest.approx(self.entropy(problem, float(times[k])), rel=0.03)

    def entropy(self, problem: GaussianBridge, t: float) -> float:
        slope = float(problem.coupling_covariance / problem.cov0)
        end_variance = float(problem.cov1 - problem.coupling_covariance**2 / problem.cov0)
        a, b, v = (float(part) for part in problem.reference.bridge_coefficients(t))
        variance, free = b * b * end_variance + v, float(problem.reference.variance(0.0, t))
        per_x0 = a + b * slope - float(problem.reference.mean_factor(0.0, t))  # difference of the conditional means
        mean = per_x0 * float(problem.mean0) + b * (float(problem.mean1) - slope * float(problem.mean0))
        square = per_x0**2 * float(problem.cov0) + mean**2
        return 0.5 * ((variance + square) / free - 1 - math.log(variance / free))

    def test_no_control_spends_nothing(self):
        dynamics = Dynamics(BrownianMotion(), lambda t, x: torch.zeros_like(x))
        assert accumulated_drift(dynamics, torch.zeros(5, 1, 2, 2), time_grid(4)).tolist() == [0] * 5

    def test_the_control_is_named_where_it_is_missing(self):
        with pytest.raises(ValueError, match="needs the control"):
            accumulated_drift(Dynamics(BrownianMotion()), torch.zeros(5, 1), time_grid(4))
