"""Cost, straightness and variance of known curves."""

import math

import pytest
import torch

from sbbridge.metrics import straightness, trajectory_variance, transport_cost


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
