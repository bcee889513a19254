"""LDSB's sampler: DDIM on the original path, second order with the right momentum, N calls."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from sbbridge.data import GaussianMixture, StandardNormal
from sbbridge.methods import FlowMatching, Solution
from sbbridge.methods.denoisers import dynamics_of
from sbbridge.networks import MLP
from sbbridge.path import LINEAR, Denoiser, GaussianPath, RatioPath, ratio_nodes
from sbbridge.problems import DenoisingProblem
from sbbridge.rng import Stream
from sbbridge.sampling import round_trip, sample
from sbbridge.sde import DDPM, VPSDE
from sbbridge.solvers import ddim, integrate, reference_path
from sbbridge.solvers.ratio_path import carry, descend
from sbbridge.training import Training, fit

DATA, PRIOR = GaussianMixture([1, 2], [[0.0, 1.0], [2.0, -1.0]], [0.1, 0.3]), StandardNormal((2,))
REFERENCES = {"chain": DDPM(), "smooth": VPSDE(beta_max=20.0), "flow": DDPM()}
every_family = pytest.mark.parametrize("family", REFERENCES)


def wavy(t, x):
    """No denoiser of anything, and far from linear."""
    return torch.sin(3 * x + t.to(x)) - 0.5 * x.flip(1)


def solution_on(family, grid, steps=5, momentum=None):
    """A sampler along the original path."""
    reference = REFERENCES[family]
    path, prediction = (LINEAR, "velocity") if family == "flow" else (reference_path(reference), "noise")
    denoiser = Denoiser(path, prediction, wavy, chain=1000 if family == "chain" else None)
    nodes = ratio_nodes(path, grid, steps, chain=denoiser.chain)
    problem = DenoisingProblem(DATA, PRIOR, reference, denoiser)
    return Solution(problem, "ldsb", dynamics_of(denoiser, reference), path_nodes=nodes, path_grid=grid,
                    path=replace(nodes.original, momentum=momentum), denoiser=denoiser)  # fmt: skip


@every_family
@pytest.mark.parametrize("grid", ["leading_uniform", "trailing_uniform", "trailing_quadratic"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
def test_the_original_path_is_ddim_at_its_nodes(family, grid, eta):
    solution = solution_on(family, grid)
    made = sample(solution, 64, seed=4, trajectory=True, eta=eta)
    start = sample(solution, 64, 1, sampler="ddim", seed=4, trajectory=True).trajectory[0]
    times = torch.cat([solution.path.times.flip(0), torch.zeros(1, dtype=torch.float64)])
    noise = Stream(4, ("sample",)).child("noise")
    step = partial(ddim.backward, eta=eta)
    _, states = integrate(step, solution.dynamics, times, start, range(64), noise, True)
    torch.testing.assert_close(made.trajectory, states, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_drawn_noise_keeps_the_law_of_any_path(eta):
    """Where the image is known, x_k has mean a_k x0 and variance b_k^2; neighbours have the covariance of the chain in
    which x_k = (a_k / a_{k−1}) x_{k−1} + noise at eta = 1, and of one and the same noise at eta = 0."""
    nodes = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    path = RatioPath(nodes, 1 - nodes**1.3, nodes**0.8)
    denoiser = Denoiser(LINEAR, "image", lambda t, x: torch.full_like(x, 1.5))
    generator = torch.Generator().manual_seed(0)

    def noise():
        return torch.randn(400_000, 1, generator=generator, dtype=torch.float64)

    x = 1.5 * path.image[-1] + path.noise[-1] * noise()
    for k, state in zip((3, 2, 1), descend(denoiser, path, x, eta, noise), strict=False):
        below = k - 1
        assert abs(state.mean() - 1.5 * path.image[below]) < 0.01
        assert abs(state.std() / path.noise[below] - 1) < 0.01
        covariance = ((x - x.mean()) * (state - state.mean())).mean()
        chain = path.image[k] / path.image[below] * path.noise[below] ** 2
        posterior = path.noise[below] ** 2 - chain**2 / path.noise[k] ** 2
        wanted = path.noise[k] * (path.noise[below] ** 2 - eta**2 * posterior).sqrt()
        if eta == 1:
            assert abs(wanted - chain) < 1e-12
        assert abs(covariance - wanted) < 0.005
        x = state


def test_drawn_noise_depends_on_seed_and_number_alone():
    solution = solution_on("smooth", "trailing_uniform")
    whole = sample(solution, 40, seed=3, eta=0.5).x
    torch.testing.assert_close(sample(solution, 40, seed=3, eta=0.5, batch_size=16).x, whole)
    torch.testing.assert_close(sample(solution, 10, seed=3, eta=0.5).x, whole[:10])
    assert (sample(solution, 40, seed=3).x - whole).abs().max() > 0.01


@pytest.mark.parametrize("family", ["smooth", "flow"])
@pytest.mark.parametrize("grid", ["leading_uniform", "trailing_uniform"])
def test_the_original_path_is_the_sampler_ddim_of_the_same_grid(family, grid):
    """Down to the last node of a leading grid, which is at 0 there and at 0.001 here."""
    solution = solution_on(family, grid, 8)
    ours, theirs = (sample(solution, 64, 8, sampler=name, grid=grid, seed=4, trajectory=True).trajectory
                    for name in ("ratio_path", "ddim"))  # fmt: skip
    same = 7 if grid.startswith("leading") else 9
    torch.testing.assert_close(ours[:same], theirs[:same], atol=1e-4, rtol=1e-4)


def test_the_original_chain_is_the_textbooks_ddim():
    """Song et al. 2021, Eq. 12 with sigma = 0, on prod (1 − beta) at the indices 0, 200, …, 800."""
    solution = solution_on("chain", "leading_uniform")
    kept = np.cumprod(1 - np.linspace(1e-4, 2e-2, 1000))
    x = PRIOR.sample(7).double()
    made = carry(solution.denoiser, solution.path, x)
    for index in (800, 600, 400, 200, 0):
        eps = wavy(torch.tensor((index + 1) / 1000, dtype=torch.float64), x)
        image = (x - (1 - kept[index]) ** 0.5 * eps) / kept[index] ** 0.5
        if index:
            x = kept[index - 200] ** 0.5 * image + (1 - kept[index - 200]) ** 0.5 * eps
    torch.testing.assert_close(made, image, atol=1e-9, rtol=1e-9)


def test_at_any_path_the_step_goes_by_its_own_a_and_b():
    """x' = (a'/a) x + (b' − b a'/a) eps (LDSB, Sec. 3) at a path that is nobody's."""
    a, b = (torch.tensor(v, dtype=torch.float64) for v in ([0.97, 0.5, 0.03], [0.02, 0.7, 0.9]))
    path = RatioPath(torch.tensor([0.1, 0.3, 0.8]), a, b)
    x = PRIOR.sample(7).double()
    states = list(descend(Denoiser(LINEAR, "noise", wavy), path, x))
    for k, state in zip((2, 1), states, strict=False):
        ratio = a[k - 1] / a[k]
        x = ratio * x + (b[k - 1] - b[k] * ratio) * wavy(path.times[k], x)
        torch.testing.assert_close(state, x)
    torch.testing.assert_close(states[2], (x - b[0] * wavy(path.times[0], x)) / a[0])


# -- momentum

Descend = Callable[..., object]


def gaussian_problem(steps: int, spread: float = 0.4, ends: tuple[float, float] = (-3.5, 2.0)):
    """N(0, spread²) under a variance-preserving path, its time and its nodes evenly in lambda = log(a / b)."""
    low, high = ends

    def rate(t):
        return 2 * (high - t * (high - low))

    own = GaussianPath(lambda t: torch.sigmoid(rate(t)).sqrt(), lambda t: torch.sigmoid(-rate(t)).sqrt())
    t = torch.linspace(0, 1, steps, dtype=torch.float64)
    a, b = own.mean(t), own.scale(t)

    def noise(t, x):
        return own.scale(t) * x / (own.mean(t) ** 2 * spread**2 + own.scale(t) ** 2)

    # two-step Adams–Bashforth in lambda for x0hat (Lu et al. 2022, DPM-Solver++ 2M), evenly spaced: the estimate may
    # move by half its last change in the part 1 − e^{−h} of the step that it enters with
    h = (high - low) / (steps - 1)
    c = torch.full((steps - 1,), (1 - np.exp(-h)) / 2, dtype=torch.float64)
    spread_at = (a**2 * spread**2 + b**2).sqrt()
    return Denoiser(own, "noise", noise), RatioPath(t, a, b, c), float(spread_at[0] / spread_at[-1])


def error_at_the_first_node(steps: int, descent: Descend = descend, momentum: bool = True) -> float:
    """Of the state at node 0 against the flow of a Gaussian, which is linear."""
    denoiser, path, exact = gaussian_problem(steps)
    path = path if momentum else replace(path, momentum=None)
    x = torch.ones(1, 1, dtype=torch.float64)
    states = list(descent(denoiser, path, x))
    return abs(float(states[-2]) - exact)


def check_momentum(descent: Descend) -> None:
    """Second order, the same at every call, and no extrapolation from nothing."""
    errors = [error_at_the_first_node(steps, descent) for steps in (65, 129, 257)]
    for coarse, fine in pairwise(errors):
        assert 3.3 < coarse / fine < 4.8, errors
    assert error_at_the_first_node(65, descent) == errors[0], "a sample changes the next"
    denoiser, path, _ = gaussian_problem(4)
    x = torch.ones(1, 1, dtype=torch.float64)
    first, plain = (next(iter(descent(denoiser, p, x))) for p in (path, replace(path, momentum=None)))
    assert torch.equal(first, plain), "there is no estimate before the first"


def test_without_momentum_the_sampler_is_of_first_order_and_with_it_of_second():
    errors = [error_at_the_first_node(steps, momentum=False) for steps in (65, 129, 257)]
    for coarse, fine in pairwise(errors):
        assert 1.8 < coarse / fine < 2.3, errors
    check_momentum(descend)
    assert error_at_the_first_node(65) < 0.05 * errors[0]


def leaking(keep: bool):
    """Planted: momentum that is not reset, or begins from an estimate of 0."""
    held = {}

    def descent(denoiser, path, x):
        before = held.get("image") if keep else torch.zeros_like(x)
        for k in reversed(range(len(path))):
            image, noise = denoiser.estimates(path.times[k], x, path.image[k], path.noise[k])
            known = path.momentum is not None and before is not None
            used = image + path.momentum[min(k, len(path) - 2)] * (image - before) if known else image
            before = held["image"] = image
            x = path.image[k - 1] * used + path.noise[k - 1] * noise if k else used
            yield x

    return descent


@pytest.mark.parametrize("keep", [True, False])
def test_momentum_that_is_not_reset_is_noticed(keep):
    with pytest.raises(AssertionError):
        check_momentum(leaking(keep))


def test_a_momentum_of_zero_is_none_and_acts_at_its_own_node():
    path = solution_on("flow", "trailing_uniform", 4).path
    x, denoiser = PRIOR.sample(5), Denoiser(LINEAR, "velocity", wavy)
    plain = list(descend(denoiser, path, x))
    for node in range(3):
        c = torch.zeros(3, dtype=torch.float64)
        assert torch.equal(torch.stack(list(descend(denoiser, replace(path, momentum=c), x))), torch.stack(plain))
        c[node] = 0.5
        states = list(descend(denoiser, replace(path, momentum=c), x))
        differ = [not torch.equal(one, other) for one, other in zip(states, plain, strict=True)]
        assert differ == [left <= node for left in (3, 2, 1, 0)]


# -- the sampler as a user calls it


@pytest.mark.parametrize("steps", [2, 5, 8])
@pytest.mark.parametrize("momentum", [False, True])
def test_as_many_calls_as_nodes_are_counted(steps, momentum):
    c = torch.full((steps - 1,), 0.1, dtype=torch.float64) if momentum else None
    solution = solution_on("flow", "trailing_uniform", steps, c)
    made = sample(solution, 5, trajectory=True)
    assert made.nfe == steps
    assert made.trajectory.shape == (steps + 1, 5, 2)
    assert torch.equal(made.trajectory[-1], made.x)


def test_a_sample_depends_on_its_seed_and_number_alone():
    solution = solution_on("chain", "leading_uniform")
    whole = sample(solution, 40, seed=3).x
    torch.testing.assert_close(sample(solution, 40, seed=3, batch_size=7).x, whole)
    torch.testing.assert_close(sample(solution, 11, seed=3).x, whole[:11])
    assert not torch.equal(sample(solution, 40, seed=4).x, whole)
    start = sample(solution, 40, seed=3, trajectory=True).trajectory[0]
    torch.testing.assert_close(sample(solution, x1=start).x, whole)


@pytest.mark.parametrize("steps", [1, 4, 6, 20])
def test_another_number_of_steps_is_refused_in_one_line(steps):
    with pytest.raises(ValueError, match=rf"^this path was fitted for 5 steps, not for {steps}$"):
        sample(solution_on("flow", "trailing_uniform"), 3, steps)


def test_what_the_sampler_cannot_do_is_refused():
    solution = solution_on("flow", "trailing_uniform")
    with pytest.raises(ValueError, match=r"eta is of ddim and ratio_path, in \[0, 1\]; got 1.5 with ratio_path"):
        sample(solution, 3, eta=1.5)
    with pytest.raises(ValueError, match=r"eta is 0.5, but there is nothing to draw noise from"):
        list(descend(solution.denoiser, solution.path, PRIOR.sample(3), 0.5))
    for sampler in (None, "ratio_path"):
        with pytest.raises(ValueError, match="ratio_path starts from noise at its own first node"):
            round_trip(solution, DATA.sample(3), 0.5, sampler=sampler)
    assert round_trip(solution, DATA.sample(3), 0.5, sampler="ddim").shape == (3, 2)
    other = fit(FlowMatching(epochs=1, pairs=16), solution.problem, network=MLP(4, 1), training=Training(batch_size=16))
    with pytest.raises(ValueError, match="ratio_path needs a path, which method flow_matching does not have"):
        sample(other, 3, sampler="ratio_path")


def test_a_noise_predictor_does_not_start_where_there_is_no_image():
    path = solution_on("flow", "trailing_uniform").path
    assert torch.isfinite(carry(Denoiser(LINEAR, "velocity", wavy), path, PRIOR.sample(3))).all()
    with pytest.raises(ValueError, match="predicts noise knows no image where a = 0"):
        carry(Denoiser(LINEAR, "noise", wavy), path, PRIOR.sample(3))


def test_every_number_of_a_path_but_the_idle_ones_has_a_gradient():
    solution = solution_on("flow", "leading_uniform", 4, torch.full((3,), 0.1, dtype=torch.float64))
    parts = {name: value.clone().requires_grad_() for name, value in vars(solution.path).items()}
    carry(solution.denoiser, RatioPath(**parts), PRIOR.sample(9)).square().sum().backward()
    for name, part in parts.items():
        assert (part.grad != 0).all(), name


def test_a_scale_of_the_predicted_noise_is_another_path_of_the_same_subspace():
    """Of noise predictors: x_{k−1} = p_k x_k + q_k eps with p_k = a_{k−1} / a_k and q_k = b_{k−1} − p_k b_k; scales s_k
    of eps make q_k into s_k q_k, and so do b_{k−1} = s_k q_k + p_k b_k from b_0 = s_0 b_0 up: they add nothing
    where b still rises."""
    solution = solution_on("smooth", "leading_uniform", 6)
    path, x = solution.path, PRIOR.sample(16).double()
    scales = torch.tensor([1.05, 1.03, 0.98, 0.99, 1.0, 1.02], dtype=torch.float64)
    scaled = {float(t): s for t, s in zip(path.times, scales, strict=True)}
    field = solution.denoiser.field
    made = carry(replace(solution.denoiser, field=lambda t, x: scaled[float(t)] * field(t, x)), path, x)
    noise = [scales[0] * path.noise[0]]
    for k in range(1, len(path)):
        p = path.image[k - 1] / path.image[k]
        noise.append((noise[-1] - scales[k] * (path.noise[k - 1] - p * path.noise[k])) / p)
    other = RatioPath(path.times, path.image, torch.stack(noise)).checked()
    assert (other.noise - path.noise).abs().max() > 0.01
    torch.testing.assert_close(carry(solution.denoiser, other, x), made, atol=1e-9, rtol=1e-9)
