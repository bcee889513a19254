"""What paths look like: cost, straightness, variance, length, and the control that was spent on them."""

import torch
from torch import Tensor

from sbbridge.metrics.finite import nan_unless_finite
from sbbridge.rng import Stream
from sbbridge.solvers import FORWARD, Dynamics, ForwardScheme, integrate
from sbbridge.types import State


@nan_unless_finite
def transport_cost(x0: State, x1: State) -> float:
    """E |x1 − x0|^2 of paired rows."""
    return float((x1.double() - x0.double()).flatten(1).square().sum(1).mean())


@nan_unless_finite
def straightness(trajectory: Tensor, times: Tensor) -> float:
    """∫ E |(x_end − x_start) − dx/dt|^2 dt / E |x_end − x_start|^2; 0 for straight lines at constant speed.

    The rectified-flow functional (Liu et al. 2023, Eq. 5), normalised by the squared displacement; dx/dt is the
    trajectory's finite difference, so for SDEs it grows with the number of steps: use it on ODE paths.

    Args:
        trajectory: `[num_steps + 1, batch, *shape]`.
        times: `[num_steps + 1]`, monotone from one end of [0, 1] to the other.
    """
    return float(straightness_per_path(trajectory, times).mean())


def straightness_per_path(trajectory: Tensor, times: Tensor) -> Tensor:
    """∫ |(x_end − x_start) − dx/dt|^2 dt / E |x_end − x_start|^2 of each path, `[batch]`; see `straightness`."""
    x, t = trajectory.flatten(2).double(), times.double()
    displacement = x[-1] - x[0]
    dt = ((t[1:] - t[:-1]) / (t[-1] - t[0]))[:, None]
    velocity = (x[1:] - x[:-1]) / dt[:, :, None]
    square = (displacement - velocity).square().sum(2)
    return (dt * square).sum(0) / displacement.square().sum(1).mean()


@nan_unless_finite
def trajectory_variance(trajectory: Tensor, times: Tensor) -> float:
    """∫ E |x_t − line_t|^2 dt / E |x_end − x_start|^2, where line_t joins the ends of each path at constant speed."""
    return float(trajectory_variance_per_path(trajectory, times).mean())


def trajectory_variance_per_path(trajectory: Tensor, times: Tensor) -> Tensor:
    """∫ |x_t − line_t|^2 dt / E |x_end − x_start|^2 of each path, `[batch]`; see `trajectory_variance`."""
    x, t = trajectory.flatten(2).double(), times.double()
    share = (t - t[0]) / (t[-1] - t[0])
    displacement = x[-1] - x[0]
    line = x[0] + share[:, None, None] * displacement
    square = (x - line).square().sum(2)
    return torch.trapezoid(square, share, dim=0) / displacement.square().sum(1).mean()


def accumulated_length(trajectory: Tensor) -> Tensor:
    """Σ_{j<k} E |x_{j+1} − x_j| for every k, `[num_steps + 1]`, of a trajectory `[num_steps + 1, batch, *shape]`."""
    steps = trajectory.flatten(2).double().diff(dim=0).norm(dim=2).mean(1)
    return torch.cat([steps.new_zeros(1), steps.cumsum(0)])


@torch.no_grad()
def accumulated_drift(dynamics: Dynamics, x0: State, times: Tensor, seed: int = 0,
                      scheme: ForwardScheme = "exponential_heun") -> Tensor:  # fmt: skip
    """E ∫_0^t ½ g^2 |u|^2 ds at every t of a grid, `[num_steps + 1]`, along forward paths dX = (f + g^2 u) dt + g dW.

    In nats: by Girsanov's theorem the relative entropy of the controlled process to the reference up to time t, both
    from x0. Trapezoidal rule on the simulation's own grid.

    Args:
        x0: starts of the paths, `[n, *shape]`.
        times: `[num_steps + 1]`, rising from 0.

    Raises:
        ValueError: there is no control.
    """
    if dynamics.control is None:
        raise ValueError("accumulated drift needs the control, which this method does not have")
    stream = Stream(seed, ("accumulated drift",), str(x0.device))
    _, path = integrate(FORWARD[scheme], dynamics, times, x0, range(len(x0)), stream, keep=True)
    assert path is not None
    controls = (dynamics.control(t, x) for t, x in zip(times, path, strict=True))
    energy = torch.stack([u.flatten(1).double().square().sum(1).mean().cpu() for u in controls])
    rate = 0.5 * dynamics.reference.diffusion(times).cpu() ** 2 * energy
    return torch.cat([rate.new_zeros(1), torch.cumulative_trapezoid(rate, times.cpu())])
