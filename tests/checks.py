"""Checks that tests share with the planted mistakes: what passes on the true code must fail on the wrong one."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbbridge import objectives
from sbbridge.coupling import Workers
from sbbridge.methods import distillation
from sbbridge.methods.base import Draw
from sbbridge.methods.prediction import BackwardScore, Velocity
from sbbridge.objectives import Regression
from sbbridge.path import node_times
from sbbridge.problems import GaussianBridge
from sbbridge.rng import Stream
from sbbridge.sde import AbstractLinearSDE
from sbbridge.solvers import BACKWARD, FORWARD, Dynamics, Step, ddim, time_grid
from tests.oracles import (
    REFERENCES,
    Array,
    GaussianOracle,
    bridge_law,
    condition,
    moments,
    random_gaussian,
    sigma_points,
)

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


def check_second_order_backward(reference: AbstractLinearSDE) -> None:
    """From 1 to 0.2 the variance has weak order 2 against the bridge's marginal; Cov(x_t, x1) and the mean no error."""
    bridge = one_dimensional(reference, 3.0)  # at 2 the score for Brownian motion is constant, and nothing is wrong
    dynamics, law = Dynamics(reference, None, bridge.backward_score), bridge.marginal(0.2)
    a, b, _ = bridge_law(reference, 0.2)
    steps, errors = [8, 16, 32, 64], []
    for n in steps:
        times = torch.linspace(1, 0.2, n + 1)
        mean, variance, covariance = propagate(BACKWARD["exponential_heun"], dynamics, times, 0.0, 1.0)
        errors.append(variance - float(law.covariance))
        np.testing.assert_allclose(covariance, a * float(bridge.coupling_covariance) + b, atol=1e-9)
        np.testing.assert_allclose(mean, float(law.mean), atol=1e-9)
    assert abs(order_of(errors, steps) - 2) < 0.25, f"order {order_of(errors, steps):.2f}"


def hold_control(dynamics: Dynamics, t: Tensor, t_next: Tensor, x: Tensor, noise: Callable[[], Tensor]) -> Tensor:
    """A wrong exponential step: u itself is held, as if its adjoint factor did not change."""
    reference = dynamics.reference
    factor, variance = reference.mean_factor(t, t_next), reference.variance(t, t_next)
    assert dynamics.control is not None
    return factor * x + variance * dynamics.control(t, x) + variance.sqrt() * noise()


# -- flows, single steps of paths, distillation


def straight_velocity(oracle: Any, t: float, x: Array) -> Array:
    """E[x1 − x0 | (1 − t) x0 + t x1 = x] by conditioning the joint law."""
    mean, cov = oracle.ends
    identity = np.eye(oracle.d)
    lift = np.block([[-identity, identity], [(1 - t) * identity, t * identity]])
    first, second = slice(0, oracle.d), slice(oracle.d, None)
    offset, gain, _ = condition(lift @ mean, lift @ cov @ lift.T, second, first)
    return offset + x @ gain.T


def check_flow_matching(d: int = 2) -> None:
    """Its solution is the mean displacement given the place on the straight line, for a coupling with correlation."""
    oracle = random_gaussian(21, d, REFERENCES["vp4"])
    x0, x1 = exact_batch(*oracle.ends, d, 0)
    for t in (0.0, *TIMES, 1.0):
        time = torch.full((len(x0),), t, dtype=torch.float64)
        solved = least_squares(objectives.flow_matching(time, x0, x1))
        np.testing.assert_allclose(solved(probe(d)), straight_velocity(oracle, t, probe(d)), atol=1e-8)


def steps_of(oracle: GaussianOracle, t: float, dt: float, way: str) -> list[Tensor]:
    """(x, x') at (t, t + dt): an Euler–Maruyama step of the exact bridge, as sigma points of the exact marginal."""
    reference = oracle.reference
    start = t if way == "forward" else t + dt
    mean, cov = oracle.marginal(start)
    y, noise = exact_batch(mean, cov, oracle.d, 1)
    f, g = float(reference.drift_coefficient(start)), float(reference.diffusion(start))
    if way == "forward":
        drift = f * y + g * g * tensor(oracle.control(start, y.numpy()))
        return [y, y + dt * drift + g * dt**0.5 * noise]
    drift = f * y - g * g * tensor(oracle.backward_score(start, y.numpy()))
    return [y - dt * drift + g * dt**0.5 * noise, y]


def mean_matching_errors(reference: AbstractLinearSDE, way: str, simplified: bool, steps: list[float]) -> list[float]:
    """Largest distance of the regression's solution from the field of the time reversal, a number for every step."""
    oracle, t, errors = random_gaussian(22, 2, reference), 0.4, []
    for dt in steps:
        times = [torch.full((2 * 4,), time, dtype=torch.float64) for time in (t, t + dt)]
        if way == "backward":  # the backward process is fitted to forward steps
            x, x_next = steps_of(oracle, t, dt, "forward")
            other = None if simplified else field_of(oracle.control)
            regression = objectives.backward_mean_matching(reference, *times, x, x_next, other)
            wanted = oracle.backward_score(t + dt, probe(2))
        else:
            x, x_next = steps_of(oracle, t, dt, "backward")
            other = None if simplified else field_of(oracle.backward_score)
            regression = objectives.forward_mean_matching(reference, *times, x, x_next, other)
            wanted = oracle.control(t, probe(2))
        errors.append(float(np.abs(least_squares(regression)(probe(2)) - wanted).max()))
    return errors


def field_of(function: Callable[[float, Array], Array]) -> Callable[[Tensor, Tensor], Tensor]:
    """An oracle's field for batches that share one time."""
    return lambda t, x: tensor(function(float(t.flatten()[0]), x.numpy()))


def check_mean_matching(reference: AbstractLinearSDE, way: str, simplified: bool) -> None:
    """The solution converges to the bridge's field, with order one in the step."""
    errors = mean_matching_errors(reference, way, simplified, [4e-3, 2e-3, 1e-3])
    assert errors[-1] < 0.05, f"the field is {errors[-1]:.3f} away"
    assert 3 < errors[0] / errors[-1] < 5, f"errors {errors} are not of first order in the step"


def check_full_target(reference: AbstractLinearSDE) -> None:
    """At a finite step the two targets differ by the other drift's change over the step, over g² of the fitted one.

    DSB, Prop. 3: B(x') = E[x' + F(x) − F(x') | x'] against S-DSB's E[x | x'], with x given x' by conditioning.
    """
    oracle, t, dt = random_gaussian(23, 2, reference), 0.4, 0.1
    x, x_next = steps_of(oracle, t, dt, "forward")
    times = [torch.full((len(x),), time, dtype=torch.float64) for time in (t, t + dt)]
    full, plain = (
        least_squares(objectives.backward_mean_matching(reference, *times, x, x_next, other))(probe(2))
        for other in (field_of(oracle.control), None)
    )
    joint = np.column_stack([x.numpy(), x_next.numpy()])
    mean, cov = joint.mean(0), np.cov(joint.T, bias=True)
    offset, gain, _ = condition(mean, cov, slice(2, 4), slice(0, 2))
    f, g, g_next = (
        float(c) for c in (reference.drift_coefficient(t), reference.diffusion(t), reference.diffusion(t + dt))
    )

    def drift(y: Array) -> Array:
        return f * y + g * g * oracle.control(t, y)

    wanted = (drift(offset + probe(2) @ gain.T) - drift(probe(2))) / g_next**2
    np.testing.assert_allclose(full - plain, wanted, atol=1e-8)


def check_ddim_keeps_the_noise(reference: AbstractLinearSDE, eta: float = 0.0) -> None:
    """Given x0, x_t = kappa x0 + sqrt(V) eps goes to a draw of the law of x_{t'} given x0; the noise gain is as wanted.

    Variances come from the moments' ODE, and the posterior's from conditioning.
    """
    x0, t, t_next = 1.3, 0.7, 0.45
    (k, v), (k_next, v_next) = moments(reference, 0.0, t), moments(reference, 0.0, t_next)
    dynamics = Dynamics(reference, None, lambda _, x: (k * x0 - x) / v)  # whose denoised image is x0 everywhere

    def step(dynamics: Dynamics, t: Tensor, t_next: Tensor, x: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        return ddim.backward(dynamics, t, t_next, x, noise, eta=eta)

    slope, offset, gain = probe_step(step, dynamics, tensor(t), tensor(t_next))
    np.testing.assert_allclose(slope * k * x0 + offset, k_next * x0, atol=1e-9)
    np.testing.assert_allclose(slope**2 * v + gain**2, v_next, atol=1e-9)
    np.testing.assert_allclose(gain, eta * bridge_law(reference, t_next, 0.0, t)[2] ** 0.5, atol=1e-9)
    assert slope > 0


class ClosedRun:
    """Stands for a run whose networks are closed-form fields."""

    def __init__(self, problem: GaussianBridge, fields: dict[str, Callable[[Tensor, Tensor], Tensor]]) -> None:
        self.problem, self.fields = problem, fields
        self.stream, self.workers = Stream(5, ("closed",)), Workers()

    def simulated_field(self, name: str, ema: bool = True, count: bool = True) -> Callable[[Tensor, Tensor], Tensor]:
        return self.fields[name]


def moved_generator(
    shift: float, stretch: float, weight: str = "normalised", student: str = "flow"
) -> tuple[float, float]:
    """How the generator's target moves its mean and its slope, where its law is N(mean0 + shift, stretch² cov0).

    The teacher's and the fake network are exact for independent pairs; data are N(0.7, 2), the prior N(0, 1). A bridge
    student has a memoryless reference, and its networks say sqrt(V) ∇log p_t.
    """
    reference = REFERENCES["vp4" if student == "flow" else "vp20"]
    prediction = (Velocity if student == "flow" else BackwardScore)(reference)
    made = (0.7 + shift, (stretch * 2.0**0.5) ** 2)
    fields = {"teacher": known_value(student, reference, 0.7, 2.0), "fake": known_value(student, reference, *made)}
    one = torch.ones((), dtype=torch.float64)

    def generator(t: Tensor, z: Tensor) -> Tensor:
        """The value whose image is the mean plus the deviation times z."""
        zero = torch.zeros_like(z)
        return (made[0] + made[1] ** 0.5 * z - prediction.image(one, z, zero)) / float(prediction.slope(one))

    options = distillation.Distillation(pairs=8, weight=weight, pair_weight=0.0)
    stage = options.stage(
        ClosedRun(one_dimensional(reference), fields | {"generator": generator}), "teacher", prediction,
        Dynamics(reference), True,
    )  # fmt: skip
    n = 64
    nothing = torch.zeros(n, 1)
    draw = Draw(Stream(6, ("step",)), 0, range(n), n)
    regression = stage.follower.objective({"x0": nothing, "x1": nothing}, draw)
    z, target = regression.x[:n], regression.target[:n]
    change = prediction.image(one, z, target) - (made[0] + made[1] ** 0.5 * z)
    slope, offset = np.polyfit(z[:, 0].numpy(), change[:, 0].numpy(), 1)
    return float(offset), float(slope)


def known_value(student: str, reference: AbstractLinearSDE, mean: float, variance: float) -> Any:
    """What a network says that has learned N(mean, variance) with a prior N(0, 1), independently paired; d = 1."""

    def at(t: float, x: Array) -> Array:
        if student == "flow":
            oracle = GaussianOracle(np.array([mean]), np.array([[variance]]), np.zeros(1), np.eye(1), reference)
            return straight_velocity(Independent(oracle), t, x)
        k, v = moments(reference, 0.0, t)
        return -(v**0.5) * (x - k * mean) / (k * k * variance + v)

    return lambda t, x: torch.cat([tensor(at(float(s), y[None].numpy())) for s, y in zip(t, x, strict=True)])


@dataclass(frozen=True)
class Independent:
    """The ends of an oracle, unpaired."""

    oracle: GaussianOracle

    @property
    def d(self) -> int:
        return self.oracle.d

    @property
    def ends(self) -> tuple[Array, Array]:
        nothing = np.zeros((self.d, self.d))
        cov = np.block([[self.oracle.cov0, nothing], [nothing, self.oracle.cov1]])
        return np.concatenate([self.oracle.mean0, self.oracle.mean1]), cov


def check_distillation_direction(weight: str = "normalised", student: str = "flow") -> None:
    """A generator whose mean or spread is off is moved towards the data, in the mean."""
    for shift in (-0.5, 0.5):
        moved = moved_generator(shift, 1.0, weight, student)[0]
        assert moved * shift < -1e-3, f"a mean that is {shift:+} off moves by {moved:+.3f}"
    for stretch in (0.7, 1.4):
        moved = moved_generator(0.0, stretch, weight, student)[1]
        assert moved * (1 - stretch) > 1e-3, f"a spread of {stretch} of the data's moves by {moved:+.3f}"
