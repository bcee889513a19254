"""Sampling from a known solution: addressed noise, counted calls, errors in one line."""

from dataclasses import replace

import pytest
import torch

from sbbridge.methods import Solution
from sbbridge.methods.backward import backward_score
from sbbridge.path import NODE_GRIDS
from sbbridge.problems import GaussianBridge
from sbbridge.sampling import sample
from sbbridge.sde import VPSDE
from sbbridge.solvers import BACKWARD, Dynamics
from sbbridge.types import expand_like


def exact_solution(beta_max=4.0, control=True):
    problem = GaussianBridge(
        [0.7, 0.0], [[2.0, 0.3], [0.3, 0.5]], [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], VPSDE(beta_max=beta_max)
    )
    dynamics = Dynamics(problem.reference, problem.control if control else None, problem.backward_score)
    return Solution(problem, "exact", dynamics, problem.corrector)


@pytest.mark.parametrize("sampler", ["ancestral", "exponential", "euler_maruyama", "heun"])
def test_samples_depend_on_their_index_and_not_on_batch_size_or_number(sampler):
    solution = exact_solution()
    whole = sample(solution, n=700, num_steps=4, sampler=sampler, seed=1).x
    for n, batch_size in ((700, 100), (700, 333), (300, 8192), (1, 1)):
        part = sample(solution, n=n, num_steps=4, sampler=sampler, seed=1, batch_size=batch_size).x
        torch.testing.assert_close(part, whole[:n], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(sample(solution, n=700, num_steps=4, sampler=sampler, seed=2).x, whole)


CALLS = {
    "ancestral": lambda n: n,
    "exponential": lambda n: n,
    "euler_maruyama": lambda n: n,
    "heun": lambda n: 2 * (2 * n - 1),
}


@pytest.mark.parametrize("num_steps", [1, 5, 12])
@pytest.mark.parametrize("sampler", CALLS)
def test_network_calls_are_counted(sampler, num_steps):
    """Heun calls control and score at both ends of a step, except in the last, Euler's."""
    made = sample(exact_solution(), n=10, num_steps=num_steps, sampler=sampler, batch_size=4)
    assert made.nfe == CALLS[sampler](num_steps)


def test_memoryless_methods_pay_for_one_network_only():
    solution = exact_solution(20.0, control=False)
    assert sample(solution, n=3, num_steps=6, sampler="ddim").nfe == 6
    assert sample(solution, n=3, num_steps=6, sampler="heun").nfe == 11


def test_given_prior_points_are_where_paths_start():
    x1 = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    made = sample(exact_solution(), x1=x1.tolist(), num_steps=5, trajectory=True)
    assert made.trajectory.shape == (6, 2, 2)
    assert torch.equal(made.trajectory[0], x1)
    assert torch.equal(made.trajectory[-1], made.x)
    assert sample(exact_solution(), n=4, num_steps=5).trajectory is None


def test_trajectories_of_several_batches_are_joined_in_order():
    solution = exact_solution()
    one = sample(solution, n=50, num_steps=3, trajectory=True)
    many = sample(solution, n=50, num_steps=3, trajectory=True, batch_size=7)
    torch.testing.assert_close(many.trajectory, one.trajectory, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", NODE_GRIDS)
@pytest.mark.parametrize("sampler", BACKWARD)
def test_every_sampler_runs_on_every_grid(sampler, grid):
    made = sample(exact_solution(20.0), n=6, num_steps=4, sampler=sampler, grid=grid)
    assert torch.isfinite(made.x).all()


def learned_solution():
    """As methods learn it: the network predicts sqrt(V) times the score, so the score itself is singular at t = 0."""
    solution = exact_solution(20.0)
    exact, reference = solution.dynamics.backward_score, solution.problem.reference

    def network(t, x):
        return expand_like(reference.variance(0.0, t.clamp(min=1e-5)).sqrt(), x) * exact(t.clamp(min=1e-5), x)

    return replace(solution, dynamics=replace(solution.dynamics, backward_score=backward_score(reference, network)))


@pytest.mark.parametrize("grid", NODE_GRIDS)
@pytest.mark.parametrize("sampler", BACKWARD)
def test_every_sampler_runs_on_every_grid_with_a_learned_score(sampler, grid):
    made = sample(learned_solution(), n=6, num_steps=4, sampler=sampler, grid=grid)
    assert torch.isfinite(made.x).all()


@pytest.mark.parametrize("sampler", ["ancestral", "exponential", "euler_maruyama", "heun"])
def test_samples_have_the_moments_of_the_data(sampler):
    """n = 40,000 at 150 steps: 5 standard errors, and 3 % for the scheme."""
    n, solution = 40_000, exact_solution()
    x = sample(solution, n=n, num_steps=150, sampler=sampler).x.double()
    cov = solution.problem.cov0
    spread = ((cov.diag().outer(cov.diag()) + cov**2) / n).sqrt()
    assert ((x.mean(0) - solution.problem.mean0).abs() < 5 * (cov.diag() / n).sqrt() + 0.02).all()
    assert ((torch.cov(x.mT) - cov).abs() < 5 * spread + 0.03 * cov.abs().max()).all()


@pytest.mark.usefixtures("global_state_untouched")
def test_sampling_leaves_the_global_random_state_alone():
    sample(exact_solution(), n=5, num_steps=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 4, "sampler": "dpm"}, r"unknown sampler 'dpm' \(allowed: ancestral, "),
        ({"n": 4, "grid": "uniform"}, r"unknown grid 'uniform' \(allowed: "),
        ({"n": 4, "num_steps": 0}, "num_steps must be >= 1, got 0"),
        ({"n": 0}, "n must be >= 1, got 0"), ({}, "n must be >= 1, got None"),
        ({"n": 4, "sampler": "ddim"}, r"ddim needs a memoryless reference, this one retains m = 0\.359"),
    ],
)  # fmt: skip
def test_impossible_requests_are_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        sample(exact_solution(), **options)
    assert "\n" not in str(caught.value)


def test_a_sampler_that_needs_a_missing_field_says_so():
    with pytest.raises(ValueError, match="the Heun scheme needs the control"):
        sample(exact_solution(control=False), n=4, sampler="heun")
