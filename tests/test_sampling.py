"""Sampling from a known solution: addressed noise, counted calls, errors in one line."""

from dataclasses import replace

import pytest
import torch

from sbbridge.methods import Solution
from sbbridge.methods.prediction import BackwardScore
from sbbridge.path import NODE_GRIDS
from sbbridge.problems import GaussianBridge
from sbbridge.rng import Stream
from sbbridge.sampling import SAMPLERS, sample
from sbbridge.sde import VESDE, VPSDE
from sbbridge.solvers import Dynamics
from sbbridge.types import expand_like


def exact_solution(beta_max=4.0, control=True):
    problem = GaussianBridge(
        [0.7, 0.0], [[2.0, 0.3], [0.3, 0.5]], [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], VPSDE(beta_max=beta_max)
    )
    dynamics = Dynamics(problem.reference, problem.control if control else None, problem.backward_score)
    return Solution(problem, "exact", dynamics, problem.corrector)


OF_FIELDS = [name for name in SAMPLERS if name != "ratio_path"]
MANY_STEPS = [name for name in OF_FIELDS if name != "one_step"]
DENOISERS = ["ddim", "edm_heun", "dpm_solver_pp", "dpm_solver_pp_3", "unipc"]


def flow_solution():
    """The exact velocity between N((0.7, 0), diag(2, 0.5)) and N(0, I), independently paired, along straight lines."""
    problem = GaussianBridge([0.7, 0.0], [[2.0, 0.0], [0.0, 0.5]], [0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], VPSDE())

    def velocity(t, x):
        mean, s = problem.mean0.to(x), problem.cov0.diag().to(x)
        a = expand_like(1 - t, x)
        return -mean + (1 - a - a * s) / (a * a * s + (1 - a) ** 2) * (x - a * mean)

    return Solution(problem, "exact", Dynamics(problem.reference, velocity=velocity))


@pytest.mark.parametrize("sampler", ["ancestral", "exponential", "exponential_heun", "euler_maruyama", "heun"])
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
    "exponential_heun": lambda n: 2 * n - 1,
    "euler_maruyama": lambda n: n,
    "euler": lambda n: 2 * n,
    "heun": lambda n: 2 * (2 * n - 1),
}


@pytest.mark.parametrize("num_steps", [1, 5, 12])
@pytest.mark.parametrize("sampler", CALLS)
def test_network_calls_are_counted(sampler, num_steps):
    """Flows of bridges call control and score; schemes of second order both ends of a step, except in the last."""
    made = sample(exact_solution(), n=10, num_steps=num_steps, sampler=sampler, batch_size=4)
    assert made.nfe == CALLS[sampler](num_steps)


@pytest.mark.parametrize("num_steps", [1, 5, 12])
@pytest.mark.parametrize("sampler", [*DENOISERS, "euler", "heun"])
def test_memoryless_methods_pay_for_one_network_only(sampler, num_steps):
    made = sample(exact_solution(20.0, control=False), n=10, num_steps=num_steps, sampler=sampler, batch_size=4)
    assert made.nfe == (2 * num_steps - 1 if sampler in ("heun", "edm_heun") else num_steps)


@pytest.mark.parametrize("num_steps", [2, 6])
def test_edm_saves_a_call_on_straight_lines(num_steps):
    """Its first step, from infinite sigma, is DDIM's."""
    made = sample(flow_solution(), n=3, num_steps=num_steps, sampler="edm_heun")
    assert made.nfe == 2 * num_steps - 2


def test_the_default_sampler_uses_what_the_method_has():
    exact, flow = exact_solution(), flow_solution()
    distilled = replace(
        exact, dynamics=Dynamics(exact.problem.reference, exact.dynamics.control, generator=lambda t, x: x)
    )
    for solution, sampler, nfe in ((exact, "exponential", 4), (flow, "heun", 7)):
        made = sample(solution, n=20, num_steps=4)
        assert made.nfe == nfe
        assert torch.equal(made.x, sample(solution, n=20, num_steps=4, sampler=sampler).x)
    made = sample(distilled, n=20, num_steps=1)
    assert made.nfe == 1
    assert torch.equal(made.x, distilled.problem.prior.draw(0, range(20), Stream(0, ("sample",)).child("prior")))


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
@pytest.mark.parametrize("sampler", MANY_STEPS)
def test_every_sampler_runs_on_every_grid(sampler, grid):
    for num_steps in (1, 2, 5):
        made = sample(exact_solution(20.0), n=6, num_steps=num_steps, sampler=sampler, grid=grid)
        assert torch.isfinite(made.x).all()


@pytest.mark.parametrize("grid", NODE_GRIDS)
@pytest.mark.parametrize("sampler", [*DENOISERS, "euler", "heun"])
def test_every_sampler_of_flows_runs_on_every_grid(sampler, grid):
    for num_steps in (1, 2, 5):
        made = sample(flow_solution(), n=6, num_steps=num_steps, sampler=sampler, grid=grid)
        assert torch.isfinite(made.x).all()


@pytest.mark.parametrize("grid", NODE_GRIDS)
@pytest.mark.parametrize("sampler", [*DENOISERS, "exponential", "exponential_heun", "ancestral", "euler", "heun"])
def test_every_sampler_runs_on_every_grid_of_a_variance_exploding_reference(sampler, grid):
    reference = VESDE(sigma_max=30.0)
    prior = reference.terminal_variance * torch.eye(2)
    problem = GaussianBridge([0.7, 0.0], [[2.0, 0.3], [0.3, 0.5]], [0.0, 0.0], prior, reference)
    solution = Solution(problem, "exact", Dynamics(reference, problem.control, problem.backward_score))
    made = sample(solution, n=6, num_steps=5, sampler=sampler, grid=grid)
    assert torch.isfinite(made.x).all()


def learned_solution():
    """As methods learn it: the network predicts sqrt(V) times the score, so the score itself is singular at t = 0."""
    solution = exact_solution(20.0)
    exact, reference = solution.dynamics.backward_score, solution.problem.reference

    def network(t, x):
        return expand_like(reference.variance(0.0, t.clamp(min=1e-5)).sqrt(), x) * exact(t.clamp(min=1e-5), x)

    return replace(solution, dynamics=BackwardScore(reference).dynamics(network, solution.dynamics.control))


@pytest.mark.parametrize("grid", NODE_GRIDS)
@pytest.mark.parametrize("sampler", MANY_STEPS)
def test_every_sampler_runs_on_every_grid_with_a_learned_score(sampler, grid):
    made = sample(learned_solution(), n=6, num_steps=4, sampler=sampler, grid=grid)
    assert torch.isfinite(made.x).all()


def assert_moments_of_the_data(x, problem):
    """5 standard errors, and 3 % for the scheme."""
    x, n, cov = x.double(), len(x), problem.cov0
    spread = ((cov.diag().outer(cov.diag()) + cov**2) / n).sqrt()
    assert ((x.mean(0) - problem.mean0).abs() < 5 * (cov.diag() / n).sqrt() + 0.02).all()
    assert ((torch.cov(x.mT) - cov).abs() < 5 * spread + 0.03 * cov.abs().max()).all()


@pytest.mark.parametrize(
    ("sampler", "num_steps"),
    [
        ("ancestral", 150),
        ("exponential", 150),
        ("euler_maruyama", 150),
        ("euler", 150),
        ("exponential_heun", 60),
        ("heun", 40),
    ],
)
def test_samples_of_a_bridge_have_the_moments_of_the_data(sampler, num_steps):
    solution = exact_solution()
    assert_moments_of_the_data(sample(solution, n=40_000, num_steps=num_steps, sampler=sampler).x, solution.problem)


@pytest.mark.parametrize(
    ("sampler", "num_steps"),
    [("ddim", 100), ("edm_heun", 30), ("dpm_solver_pp", 30), ("dpm_solver_pp_3", 30), ("unipc", 30)],
)
def test_samplers_of_denoisers_give_the_moments_of_the_data(sampler, num_steps):
    solution = exact_solution(20.0, control=False)
    made = sample(solution, n=40_000, num_steps=num_steps, sampler=sampler, grid="trailing_quadratic")
    assert_moments_of_the_data(made.x, solution.problem)
    flow = flow_solution()
    assert_moments_of_the_data(sample(flow, n=40_000, num_steps=num_steps, sampler=sampler).x, flow.problem)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_noise_in_ddim_keeps_the_law_and_changes_the_samples(eta):
    """A thousand steps' bias at eta = 1 is that of ancestral sampling: 3 % of the variance at 150 steps."""
    solution = exact_solution(20.0, control=False)
    options = {"n": 20_000, "num_steps": 150, "grid": "trailing_quadratic"}
    noisy = sample(solution, sampler="ddim", eta=eta, **options).x
    assert_moments_of_the_data(noisy, solution.problem)
    assert not torch.allclose(noisy, sample(solution, sampler="ddim", **options).x)
    if eta == 1:
        assert torch.allclose(noisy, sample(solution, sampler="ancestral", **options).x, atol=1e-3)


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


@pytest.mark.parametrize("sampler", OF_FIELDS)
def test_a_sampler_that_lacks_its_field_is_named(sampler):
    """A distilled method without a score has nothing but its generator, and a bridge has no generator."""
    x = exact_solution(20.0)
    empty = replace(x, dynamics=Dynamics(x.problem.reference, generator=lambda t, x: x))
    solution = x if sampler == "one_step" else empty
    with pytest.raises(ValueError, match=f"the {sampler} scheme needs (a|the) (backward score|generator)"):
        sample(solution, n=4, sampler=sampler, num_steps=3)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_the_flow_of_a_bridge_needs_its_control(sampler):
    with pytest.raises(ValueError, match=f"the {sampler} scheme needs the control"):
        sample(exact_solution(control=False), n=4, sampler=sampler)


@pytest.mark.parametrize("sampler", DENOISERS)
def test_samplers_of_denoisers_refuse_references_with_memory(sampler):
    with pytest.raises(ValueError, match=rf"{sampler} needs a memoryless reference, this one retains m = 0\.359"):
        sample(exact_solution(), n=4, sampler=sampler)


@pytest.mark.parametrize("sampler", ["exponential", "exponential_heun", "ancestral", "euler_maruyama"])
def test_samplers_of_sdes_refuse_flows(sampler):
    with pytest.raises(ValueError, match="scheme needs the backward score"):
        sample(flow_solution(), n=4, sampler=sampler)
