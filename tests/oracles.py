"""Answers from elsewhere: moment ODEs, Gaussian conditioning, matrix IPF, Sinkhorn on a grid.

Of sbbridge they use f and g only.

The product computes kappa, V, bridges and fields in closed form. Here they come from integrating dm/dt = f m,
dV/dt = 2 f V + g^2 and from conditioning joint Gaussians numerically.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.special import logsumexp

from sbbridge.sde import DDPM, VESDE, VPSDE, AbstractLinearSDE, BrownianMotion, LinearSDE

Array = NDArray[np.float64]

REFERENCES: dict[str, AbstractLinearSDE] = {
    "vp4": VPSDE(),
    "vp20": VPSDE(beta_max=20.0),
    "vp1_wide": VPSDE(beta_min=0.3, beta_max=1.0, sigma=1.5),
    "vp_constant": VPSDE(schedule="constant"),
    "brownian": BrownianMotion(),
    "brownian_0.7": BrownianMotion(sigma=0.7),
    "ve": VESDE(sigma_min=0.1, sigma_max=2.0),
    "linear": LinearSDE(),
    "ddpm": DDPM(num_steps=3, first_beta=0.2, last_beta=0.35),
}
"""Every kind of reference, and every branch of it."""


@cache
def moments(reference: AbstractLinearSDE, s: float, t: float) -> tuple[float, float]:
    """(kappa(s, t), V(s, t)) by integrating the moments' ODEs."""
    if s == t:
        return 1.0, 0.0

    jumps = [k / reference.num_steps for k in range(1, reference.num_steps)] if isinstance(reference, DDPM) else []
    # rates that jump are constant in between, and are asked for there
    inset = 1e-6 if jumps else 0.0
    end = np.array([1.0, 0.0])
    for first, last in pairwise([s, *(jump for jump in jumps if s < jump < t), t]):

        def slope(time: float, y: Array, low: float = first + inset, high: float = last - inset) -> list[float]:
            inside = min(max(time, low), high)
            f, g = float(reference.drift_coefficient(inside)), float(reference.diffusion(inside))
            return [f * y[0], 2 * f * y[1] + g * g]

        end = solve_ivp(slope, (first, last), end, method="DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
    return float(end[0]), float(end[1])


def condition(mean: Array, cov: Array, known: slice, unknown: slice) -> tuple[Array, Array, Array]:
    """(offset, gain, covariance) of unknown | known = y: offset + gain y, in a joint Gaussian."""
    gain = np.linalg.solve(cov[known, known], cov[known, unknown]).T
    return mean[unknown] - gain @ mean[known], gain, cov[unknown, unknown] - gain @ cov[known, unknown]


def bridge_law(
    reference: AbstractLinearSDE, t: float, start: float = 0.0, end: float = 1.0
) -> tuple[float, float, float]:
    """(A, B, v) of X_t | X_start, X_end, by conditioning the joint law of (X_t, X_end) given X_start = 0 and = 1."""
    before, v_before = moments(reference, start, t)
    after, v_after = moments(reference, t, end)
    cov = np.array([[v_before, after * v_before], [after * v_before, after**2 * v_before + v_after]])
    _, gain, rest = condition(np.zeros(2), cov, slice(1, 2), slice(0, 1))
    offset, _, _ = condition(np.array([before, before * after]), cov, slice(1, 2), slice(0, 1))
    return float(offset[0]), float(gain[0, 0]), float(rest[0, 0])


def ipf(reference: AbstractLinearSDE, cov0: Array, cov1: Array, tol: float = 1e-13, most: int = 50_000) -> Array:
    """Cov(x0, x1) of the Gaussian bridge: replace either marginal in turn until nothing moves."""
    m, tau2 = moments(reference, 0.0, 1.0)
    d = len(cov0)
    first, second = slice(0, d), slice(d, 2 * d)
    joint = np.block([[cov0, m * cov0], [m * cov0, m * m * cov0 + tau2 * np.eye(d)]])
    for _ in range(most):
        before = joint
        for known, unknown, wanted in ((second, first, cov1), (first, second, cov0)):
            _, gain, rest = condition(np.zeros(2 * d), joint, known, unknown)
            new = np.empty_like(joint)
            new[known, known], new[unknown, unknown] = wanted, gain @ wanted @ gain.T + rest
            new[unknown, known] = gain @ wanted
            new[known, unknown] = new[unknown, known].T
            joint = new
        if np.abs(joint - before).max() < tol:
            return joint[first, second]
    raise AssertionError("IPF did not converge")


@dataclass(frozen=True)
class GaussianOracle:
    """The Gaussian bridge by IPF, moment ODEs and conditioning: no closed form of the product is used."""

    mean0: Array
    cov0: Array
    mean1: Array
    cov1: Array
    reference: AbstractLinearSDE

    @property
    def d(self) -> int:
        return len(self.mean0)

    @cached_property
    def coupling(self) -> Array:
        return ipf(self.reference, self.cov0, self.cov1)

    @cached_property
    def ends(self) -> tuple[Array, Array]:
        """Mean and covariance of (x0, x1)."""
        c = self.coupling
        return np.concatenate([self.mean0, self.mean1]), np.block([[self.cov0, c], [c.T, self.cov1]])

    def path(self, t: float) -> tuple[Array, Array]:
        """Mean and covariance of (x0, x1, x_t)."""
        mean, cov = self.ends
        a, b, v = bridge_law(self.reference, t)
        identity = np.eye(self.d)
        lift = np.vstack([np.eye(2 * self.d), np.hstack([a * identity, b * identity])])
        whole = lift @ cov @ lift.T
        whole[2 * self.d :, 2 * self.d :] += v * identity
        return lift @ mean, whole

    def given(self, t: float) -> tuple[Array, Array]:
        """(offset, gain) of E[(x0, x1) | x_t]."""
        mean, cov = self.path(t)
        offset, gain, _ = condition(mean, cov, slice(2 * self.d, None), slice(0, 2 * self.d))
        return offset, gain

    def control(self, t: float, x: Array) -> Array:
        """E[∇_{x_t} log p(x1 | x_t) | x_t], t < 1."""
        offset, gain = self.given(t)
        k, v = moments(self.reference, t, 1.0)
        x1 = (offset + x @ gain.T)[:, self.d :]
        return k * (x1 - k * x) / v

    def backward_score(self, t: float, x: Array) -> Array:
        """E[∇_{x_t} log p(x_t | x0) | x_t], t > 0."""
        offset, gain = self.given(t)
        k, v = moments(self.reference, 0.0, t)
        x0 = (offset + x @ gain.T)[:, : self.d]
        return (k * x0 - x) / v

    def corrector(self, x: Array) -> Array:
        """E[∇_{x1} log p(x1 | x0) | x1]."""
        mean, cov = self.ends
        offset, gain, _ = condition(mean, cov, slice(self.d, None), slice(0, self.d))
        m, tau2 = moments(self.reference, 0.0, 1.0)
        return (m * (offset + x @ gain.T) - x) / tau2

    def marginal(self, t: float) -> tuple[Array, Array]:
        mean, cov = self.path(t)
        return mean[2 * self.d :], cov[2 * self.d :, 2 * self.d :]

    def adjoint_mean(self, t: float, x: Array) -> Array:
        """E[a_t | x_t] with a_1 = cov1⁻¹(x1 − mean1) + h(x1), carried back by the ODE's kappa(t, 1)."""
        offset, gain = self.given(t)
        x1 = (offset + x @ gain.T)[:, self.d :]
        energy_gradient = np.linalg.solve(self.cov1, (x1 - self.mean1).T).T
        # h is affine, so its conditional mean is its value at the conditional mean
        return moments(self.reference, t, 1.0)[0] * (energy_gradient + self.corrector(x1))


def random_gaussian(seed: int, d: int, reference: AbstractLinearSDE) -> GaussianOracle:
    """A Gaussian problem with correlated, unequal covariances."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, d, d))
    cov0, cov1 = a @ a.T + 0.3 * np.eye(d), b @ b.T / 3 + 0.5 * np.eye(d)
    return GaussianOracle(rng.normal(size=d), cov0, rng.normal(size=d), cov1, reference)


def sigma_points(mean: Array, cov: Array) -> Array:
    """Points `[2 D, D]` with exactly this mean and covariance (divisor n): regressions on them are exact."""
    d = len(mean)
    values, vectors = np.linalg.eigh(cov)
    root = vectors * np.sqrt(np.clip(values, 0, None) * d)
    return np.concatenate([mean + root.T, mean - root.T])


@dataclass(frozen=True)
class GridBridge:
    """A 1-D Schrödinger bridge by log-domain Sinkhorn on a grid.

    log_p0 and log_p1 are log probabilities of the grid's points, log_kernel the reference's, up to constants.
    """

    grid: Array
    log_plan: Array
    log_psi0: Array
    log_psi1: Array
    reference: Any

    @property
    def plan(self) -> Array:
        return np.exp(self.log_plan)

    def covariance(self) -> float:
        x, p = self.grid, self.plan
        return float(x @ p @ x - (p.sum(1) @ x) * (p.sum(0) @ x))

    def cost(self) -> float:
        return float((self.plan * (self.grid[:, None] - self.grid[None]) ** 2).sum())

    def x1_given_x0(self, x0: float) -> float:
        return self._conditional(x0, self.log_psi1, forward=True)

    def x0_given_x1(self, x1: float) -> float:
        return self._conditional(x1, self.log_psi0, forward=False)

    def _conditional(self, at: float, log_psi: Array, forward: bool) -> float:
        m, tau2 = moments(self.reference, 0.0, 1.0)
        gap = (self.grid - m * at) if forward else (at - m * self.grid)
        weight = log_psi - gap**2 / (2 * tau2)
        return float(np.exp(weight - logsumexp(weight)) @ self.grid)

    def control(self, t: float, x: float) -> float:
        """E over phi_1 of ∇_x log p(x1 | x)."""
        k, v = moments(self.reference, t, 1.0)
        weight = self.log_psi1 - (self.grid - k * x) ** 2 / (2 * v)
        return float(np.exp(weight - logsumexp(weight)) @ (k * (self.grid - k * x) / v))

    def backward_score(self, t: float, x: float) -> float:
        """E over phihat_0 of ∇_x log p(x | x0)."""
        k, v = moments(self.reference, 0.0, t)
        weight = self.log_psi0 - (x - k * self.grid) ** 2 / (2 * v)
        return float(np.exp(weight - logsumexp(weight)) @ ((k * self.grid - x) / v))


def grid_sinkhorn(
    reference: AbstractLinearSDE,
    log_p0: Any,
    log_p1: Any,
    half_width: float = 7.0,
    points: int = 701,
    iterations: int = 400,
) -> GridBridge:
    """Sinkhorn between two log densities; the grid is far finer than every scale, where sums are spectrally exact."""
    x = np.linspace(-half_width, half_width, points)
    m, tau2 = moments(reference, 0.0, 1.0)
    l0, l1 = log_p0(x), log_p1(x)
    l0, l1 = l0 - logsumexp(l0), l1 - logsumexp(l1)
    log_kernel = -((x[None, :] - m * x[:, None]) ** 2) / (2 * tau2)
    shift = log_kernel.max()
    kernel = np.exp(log_kernel - shift)
    f, g = np.zeros(points), np.zeros(points)
    for _ in range(iterations):
        old = g
        g = l1 - _log_matvec(kernel.T, f)
        f = l0 - _log_matvec(kernel, g)
        if np.abs(g - old).max() < 1e-12:
            break
    log_plan = log_kernel - shift + f[:, None] + g[None, :]
    return GridBridge(x, log_plan - logsumexp(log_plan), f, g, reference)


def _log_matvec(kernel: Array, log_v: Array) -> Array:
    top = log_v.max()
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(kernel @ np.exp(log_v - top), 1e-300)) + top
