"""Data to time t and back: the law is kept, and short trips end where they began."""

from dataclasses import replace

import pytest
import torch

from sbbridge.methods import Solution
from sbbridge.problems import GaussianBridge
from sbbridge.sampling import round_trip
from sbbridge.sde import VPSDE
from sbbridge.solvers import Dynamics
from tests.test_sampling import assert_moments_of_the_data, exact_solution, flow_solution

N = 20_000


def memoryless():
    return exact_solution(20.0, control=False)


SOLUTIONS = {
    "bridge": (exact_solution, "exponential_heun"),
    "memoryless": (memoryless, "heun"),
    "flow": (flow_solution, None),
}
every_solution = pytest.mark.parametrize(("make", "sampler"), SOLUTIONS.values(), ids=SOLUTIONS.keys())


@every_solution
@pytest.mark.parametrize("t", [0.3, 0.7, 1.0])
def test_what_comes_back_has_the_law_of_the_data(make, sampler, t):
    solution = make()
    x0 = solution.problem.data.sample(N, seed=7)
    assert_moments_of_the_data(round_trip(solution, x0, t, 60, sampler=sampler), solution.problem)


@every_solution
def test_short_trips_come_home_and_longer_ones_end_farther_away(make, sampler):
    solution = make()
    x0 = solution.problem.data.sample(2000, seed=7)
    distances = [
        float((round_trip(solution, x0, t, 40, sampler=sampler) - x0).square().sum(1).mean().sqrt())
        for t in (1e-4, 0.05, 0.2, 0.5, 1.0)
    ]
    assert distances[0] < 0.03
    assert distances == sorted(distances)
    assert distances[-1] > 0.5


def test_a_whole_trip_forgets_what_the_bridge_forgets():
    """Given x1, the return is independent of the start: Cov(x0, x0') = C S1⁻¹ Cᵀ, 5 standard errors."""
    solution = exact_solution()
    x0 = solution.problem.data.sample(N, seed=8)
    back = round_trip(solution, x0, 1.0, 60, sampler="exponential_heun")
    made = torch.cov(torch.cat([x0, back], 1).double().mT)[:2, 2:]
    coupling = solution.problem.coupling_covariance
    wanted = coupling @ torch.linalg.inv(solution.problem.cov1) @ coupling.mT
    assert (made - wanted).abs().max() < 5 * 2.0 / N**0.5 + 0.02


def test_trips_are_reproducible_and_seeded():
    solution = exact_solution()
    x0 = solution.problem.data.sample(50, seed=1)
    first, again, other = (round_trip(solution, x0, 0.5, 5, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize("t", [0.0, -0.1, 1.5])
def test_times_outside_the_process_are_refused(t):
    with pytest.raises(ValueError, match=r"t must be in \(0, 1\], got"):
        round_trip(exact_solution(), [[0.0, 0.0]], t)


def test_a_bridge_whose_control_is_unknown_has_no_way_forward():
    """The reference alone would end elsewhere: it is the method's own process where it is memoryless only."""
    with pytest.raises(ValueError, match="control"):
        round_trip(exact_solution(control=False), [[0.0, 0.0]], 0.5)


def test_a_flow_that_was_learned_from_a_bridges_pairs_keeps_the_law_of_the_data():
    """Such a method has a control, too; its flow moves along straight lines and must be entered on them."""
    reference = VPSDE()
    problem = GaussianBridge(0.0, 4.0, 0.0, 1.0, reference)
    c = float(problem.coupling_covariance)

    def velocity(t, x):
        a, b = 1 - t, t
        variance = a * a * 4 + b * b + 2 * a * b * c
        return (-a * 4 + b + (a - b) * c) / variance * x

    dynamics = Dynamics(reference, problem.control, velocity=velocity)
    x0 = problem.data.sample(N, seed=9)
    back = round_trip(Solution(problem, "exact", dynamics), x0, 0.5, 60)
    assert float(back.var()) == pytest.approx(4.0, rel=0.05)


def test_a_generator_only_makes_whole_trips():
    """It was learned at t = 1: from elsewhere it would make something else."""
    x = exact_solution(20.0)
    distilled = replace(x, dynamics=Dynamics(x.problem.reference, generator=lambda t, z: 2 * z))
    assert round_trip(distilled, [[0.0, 0.0]], 1.0, 1).shape == (1, 2)
    with pytest.raises(ValueError, match="distilled"):
        round_trip(distilled, [[0.0, 0.0]], 0.5, 1)
