"""Time grids for simulation from data to prior."""

import torch
from torch import Tensor


def time_grid(num_steps: int, power: float = 1.0) -> Tensor:
    """Rising times `[num_steps + 1]` from 0 to 1: t = 1 − (1 − w)^power.

    power = 1 is uniform; power = 2 takes short steps near the prior, where the control changes fastest.

    Raises:
        ValueError: fewer than one step, or a power that is not positive.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")
    if power <= 0:
        raise ValueError(f"power must be > 0, got {power}")
    return 1 - (1 - torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)) ** power
