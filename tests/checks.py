"""Checks that tests share with the planted mistakes: what passes on the true code must fail on the wrong one."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from sbbridge import objectives
from sbbridge.objectives import Regression
from sbbridge.path import node_times
from sbbridge.problems import GaussianBridge
from sbbridge.sde import AbstractLinearSDE
from sbbridge.solvers import BACKWARD, FORWARD, Dynamics, Step, time_grid
from tests.oracles import Array, GaussianOracle, moments, random_gaussian, sigma_points

TIMES = (0.15, 0.5, 0.9)


def tensor(x: Array) -> Tensor:
    return torch.as_tensor(x, dtype=torch.float64)


def bridge_of(oracle: GaussianOracle) -> GaussianBridge:
    return GaussianBridge(oracle.mean0, oracle.cov0, oracle.mean1, oracle.cov1, oracle.reference)


def exact_batch(mean: Array, cov: Array, d: int, noises: int) -> list[Tensor]:
    """Sigma points of (joint law, standard normal noise), cut into states: every regression on them is exact."""
    extra = noises * d
    whole = np.zeros((len(mean) + extra, len(mean) + extra))
    whole[: len(mean), : len(mean)] = cov
    whole[len(mean) :, len(mean) :] = np.eye(extra)
    points = sigma_points(np.concatenate([mean, np.zeros(extra)]), whole)
    return [tensor(part) for part in np.split(points, points.shape[1] // d, axis=1)]


def least_squares(regression: Regression) -> Callable[[Array], Array]:
    """The affine function of x that fits the regression's target best."""
    features = np.column_stack([regression.x.numpy(), np.ones(len(regression.x))])
    coefficients = np.linalg.lstsq(features, regression.target.numpy(), rcond=None)[0]
    return lambda x: np.column_stack([x, np.ones(len(x))]) @ coefficients


def probe(d: int) -> Array:
    return np.random.default_rng(5).normal(size=(7, d)) * 2


def check_adjoint_matching(reference: AbstractLinearSDE, d: int = 2) -> None:
    """Its solution with the exact corrector is the optimal control."""
    oracle = random_gaussian(1, d, reference)
    x0, x1, noise = exact_batch(*oracle.ends, d, 1)
    energy_gradient = tensor(np.linalg.solve(oracle.cov1, (x1.numpy() - oracle.mean1).T).T)
    terminal_adjoint = energy_gradient + tensor(oracle.corrector(x1.numpy()))
    for t in TIMES:
        time = torch.full((len(x0),), t, dtype=torch.float64)
        solved = least_squares(objectives.adjoint_matching(reference, time, x0, x1, terminal_adjoint, noise))
        np.testing.assert_allclose(solved(probe(d)), oracle.control(t, probe(d)), atol=1e-8)


def check_corrector_matching(reference: AbstractLinearSDE, d: int = 2) -> None:
    """Its solution on the exact coupling is ∇log phihat_1."""
    oracle = random_gaussian(2, d, reference)
    x0, x1 = exact_batch(*oracle.ends, d, 0)
    solved = least_squares(objectives.corrector_matching(reference, x0, x1))
    np.testing.assert_allclose(solved(probe(d)), oracle.corrector(probe(d)), atol=1e-8)


def check_backward_bridge_matching(reference: AbstractLinearSDE, d: int = 2) -> None:
    """Its solution over sqrt(V) is ∇log phihat_t."""
    oracle = random_gaussian(3, d, reference)
    x0, x1, noise = exact_batch(*oracle.ends, d, 1)
    for t in TIMES:
        time = torch.full((len(x0),), t, dtype=torch.float64)
        solved = least_squares(objectives.backward_bridge_matching(reference, time, x0, x1, noise))
        scale = moments(reference, 0.0, t)[1] ** 0.5
        np.testing.assert_allclose(solved(probe(d)) / scale, oracle.backward_score(t, probe(d)), atol=1e-8)


def check_forward_bridge_matching(reference: AbstractLinearSDE, d: int = 2) -> None:
    """Its solution on the exact coupling is the optimal control."""
    oracle = random_gaussian(4, d, reference)
    x0, x1, noise = exact_batch(*oracle.ends, d, 1)
    for t in TIMES:
        time = torch.full((len(x0),), t, dtype=torch.float64)
        solved = least_squares(objectives.forward_bridge_matching(reference, time, x0, x1, noise))
        np.testing.assert_allclose(solved(probe(d)), oracle.control(t, probe(d)), atol=1e-8)


def check_denoising_score_matching(reference: AbstractLinearSDE, d: int = 2) -> None:
    """Its solution over sqrt(V) is the score of the noised data."""
    oracle = random_gaussian(6, d, reference)
    x0, noise = exact_batch(oracle.mean0, oracle.cov0, d, 1)
    for t in TIMES:
        k, v = moments(reference, 0.0, t)
        time = torch.full((len(x0),), t, dtype=torch.float64)
        solved = least_squares(objectives.denoising_score_matching(reference, time, x0, noise))
        noised = k * k * oracle.cov0 + v * np.eye(d)
        score = -np.linalg.solve(noised, (probe(d) - k * oracle.mean0).T).T
        np.testing.assert_allclose(solved(probe(d)) / v**0.5, score, atol=1e-8)


def check_gaussian_corrector(reference: AbstractLinearSDE) -> None:
    """The closed form's corrector is E[∇log p(x1 | x0) | x1]."""
    oracle = random_gaussian(12, 2, reference)
    np.testing.assert_allclose(bridge_of(oracle).corrector(tensor(probe(2))), oracle.corrector(probe(2)), atol=1e-8)


# -- schemes: with exact 1-D fields every step is linear in (x, noise), so moments follow without sampling


def one_dimensional(reference: AbstractLinearSDE, data_variance: float = 2.0) -> GaussianBridge:
    return GaussianBridge(0.7, data_variance, 0.0, 1.0, reference)


def probe_step(step: Step, dynamics: Dynamics, t: Tensor, t_next: Tensor) -> tuple[float, float, float]:
    """(slope, offset, noise gain) of one step, which is linear in x and noise."""
    calls = 0

    def noise() -> Tensor:
        nonlocal calls
        calls += 1
        return torch.tensor([[0.0], [0.0], [1.0]])

    at = step(dynamics, t, t_next, torch.tensor([[0.0], [1.0], [0.0]]), noise).flatten()
    assert calls <= 1, "a scheme draws at most one noise a step"
    return (at[1] - at[0]).item(), at[0].item(), (at[2] - at[0]).item()


def propagate(
    step: Step, dynamics: Dynamics, times: Tensor, mean: float, variance: float
) -> tuple[float, float, float]:
    """(mean, variance, covariance with the start) at the end of the times."""
    covariance = variance
    for t, t_next in pairwise(times):
        slope, offset, gain = probe_step(step, dynamics, t, t_next)
        mean, variance, covariance = slope * mean + offset, slope**2 * variance + gain**2, slope * covariance
    return mean, variance, covariance


def forward_moments(
    reference: AbstractLinearSDE, scheme: str, num_steps: int, power: float = 1.0
) -> tuple[float, float, float]:
    bridge = one_dimensional(reference)
    dynamics = Dynamics(reference, bridge.control)
    return propagate(FORWARD[scheme], dynamics, time_grid(num_steps, power), 0.7, 2.0)


def backward_moments(
    reference: AbstractLinearSDE, scheme: str, num_steps: int, control: bool = True
) -> tuple[float, float, float]:
    bridge = one_dimensional(reference)
    dynamics = Dynamics(reference, bridge.control if control else None, bridge.backward_score)
    return propagate(BACKWARD[scheme], dynamics, node_times("trailing_uniform", num_steps), 0.0, 1.0)


def order_of(errors: list[float], steps: list[int]) -> float:
    """The slope of log error on log step size."""
    return float(-np.polyfit(np.log(steps), np.log(np.abs(errors)), 1)[0])


def check_exact_covariance(reference: AbstractLinearSDE, scheme: str) -> None:
    """Cov(x0, x1) and the mean of x1 have no discretisation error."""
    wanted = float(one_dimensional(reference).coupling_covariance)
    for num_steps, power in ((1, 1.0), (3, 1.0), (8, 2.0), (20, 1.0)):
        mean, _, covariance = forward_moments(reference, scheme, num_steps, power)
        np.testing.assert_allclose(covariance, wanted, atol=1e-9)
        np.testing.assert_allclose(mean, 0.0, atol=1e-9)


def check_forward_order(reference: AbstractLinearSDE, scheme: str, order: int) -> None:
    """The variance of x1 converges to the prior's with this order."""
    steps = [32, 64, 128, 256]
    errors = [forward_moments(reference, scheme, n)[1] - 1.0 for n in steps]
    assert abs(errors[-1]) < 0.02, f"the variance of x1 ends {errors[-1]:+.3f} from the prior's"
    assert abs(order_of(errors, steps) - order) < 0.25, f"order {order_of(errors, steps):.2f}"


def check_backward_order(reference: AbstractLinearSDE, scheme: str, order: int) -> None:
    """The variance of x0 converges to the data's with this order, and so does the mean."""
    steps = [48, 96, 192, 384]
    ends = [backward_moments(reference, scheme, n) for n in steps]
    errors = [variance - 2.0 for _, variance, _ in ends]
    assert abs(errors[-1]) < 0.05, f"the variance of x0 ends {errors[-1]:+.3f} from the data's"
    assert abs(ends[-1][0] - 0.7) < 0.02, f"the mean of x0 is {ends[-1][0]:.3f}"
    assert abs(order_of(errors, steps) - order) < 0.25, f"order {order_of(errors, steps):.2f}"


def hold_control(dynamics: Dynamics, t: Tensor, t_next: Tensor, x: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    """A wrong exponential step: u itself is held, as if its adjoint factor did not change."""
    reference = dynamics.reference
    factor, variance = reference.mean_factor(t, t_next), reference.variance(t, t_next)
    assert dynamics.control is not None
    return factor * x + variance * dynamics.control(t, x) + variance.sqrt() * noise()
