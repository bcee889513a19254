"""What paths look like: cost, straightness, variance."""

import torch
from torch import Tensor

from sbbridge.types import State


def transport_cost(x0: State, x1: State) -> float:
    """E |x1 − x0|^2 of paired rows."""
    return float((x1 - x0).flatten(1).double().square().sum(1).mean())


def straightness(trajectory: Tensor, times: Tensor) -> float:
    """∫ E |(x_end − x_start) − dx/dt|^2 dt / E |x_end − x_start|^2; 0 for straight lines at constant speed.

    The rectified-flow functional (Liu et al. 2023, Eq. 5), normalised by the squared displacement; dx/dt is the
    trajectory's finite difference, so for SDEs it grows with the number of steps: use it on ODE paths.

    Args:
        trajectory: `[num_steps + 1, batch, *shape]`.
        times: `[num_steps + 1]`, monotone from one end of [0, 1] to the other.
    """
    x, t = trajectory.flatten(2).double(), times.double()
    total = (t[-1] - t[0]).abs()
    displacement = x[-1] - x[0]
    dt = (t[1:] - t[:-1]).abs() / total
    velocity = (x[1:] - x[:-1]) / dt[:, None, None]
    square = (displacement - velocity).square().sum(2).mean(1)
    return float((dt * square).sum() / displacement.square().sum(1).mean())


def trajectory_variance(trajectory: Tensor, times: Tensor) -> float:
    """∫ E |x_t − line_t|^2 dt / E |x_end − x_start|^2, where line_t joins the ends of each path at constant speed."""
    x, t = trajectory.flatten(2).double(), times.double()
    share = (t - t[0]) / (t[-1] - t[0])
    line = x[0] + share[:, None, None] * (x[-1] - x[0])
    square = (x - line).square().sum(2).mean(1)
    integral = torch.trapezoid(square, share)
    return float(integral / (x[-1] - x[0]).square().sum(1).mean())
