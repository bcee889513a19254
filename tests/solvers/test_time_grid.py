import pytest
import torch

from sbbridge.solvers import time_grid


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_simulation_times_rise_from_zero_to_one(power):
    times = time_grid(7, power)
    assert times.shape == (8,)
    assert times.dtype == torch.float64
    assert times[0] == 0
    assert times[-1] == 1
    assert (times.diff() > 0).all()


def test_power_one_is_uniform_and_power_two_ends_with_the_shortest_step():
    assert time_grid(4).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert time_grid(4, 2.0).tolist() == [0.0, 0.4375, 0.75, 0.9375, 1.0]


@pytest.mark.parametrize(("arguments", "name"), [((0,), "num_steps"), ((3, 0.0), "power"), ((3, -1.0), "power")])
def test_impossible_grids_are_refused_by_name(arguments, name):
    with pytest.raises(ValueError, match=name):
        time_grid(*arguments)
