"""Where a sampler calls its network: named grids of nodes."""

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

NodeGrid: TypeAlias = Literal[
    "trailing_uniform", "leading_uniform", "trailing_quadratic", "leading_quadratic", "trailing_log_snr",
    "leading_log_snr", "trailing_karras", "leading_karras",
]  # fmt: skip
NODE_GRIDS: tuple[str, ...] = get_args(NodeGrid)
SMALLEST_TIME = 1e-3
"""Grids in log-SNR or sigma end here, because the SNR is infinite at 0; where it is 0 at 1, they begin as near to 1."""
KARRAS_POWER = 7.0


def node_times(grid: str, num_steps: int, log_snr: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Times `[num_steps + 1]`, falling: the network is called at all but the last, which is 0.

    `trailing` nodes are w = 1, …, 1/N, `leading` ones (LDSB's, DDIM's) 1 − 1/N, …, 0: these start from noise that
    belongs to t = 1 and spend their last call at the data. `uniform`: t = w; `quadratic`: t = w^2;
    `log_snr`: evenly spaced in log(kappa(0, t)^2 / V(0, t)), which the caller gives; `karras`: evenly spaced in
    sigma^(1/7), sigma^2 = V / kappa^2 (Karras et al. 2022, Eq. 5).

    Raises:
        ValueError: an unknown grid, or fewer than one step.
    """
    if grid not in NODE_GRIDS:
        raise ValueError(f"unknown grid {grid!r} (allowed: {', '.join(NODE_GRIDS)})")
    if num_steps < 1:
        raise ValueError(f"num_steps must be >= 1, got {num_steps}")
    side, spacing = grid.split("_", 1)
    first = 1.0 if side == "trailing" else 1 - 1 / num_steps
    w = first - torch.arange(num_steps, dtype=torch.float64) / num_steps
    if spacing == "quadratic":
        w = w**2
    elif spacing != "uniform":
        if log_snr is None:
            raise ValueError(f"grid {grid!r} needs log_snr")
        w = _evenly(w, log_snr, spacing)
    return torch.cat([w, torch.zeros(1, dtype=torch.float64)])


def _evenly(w: Tensor, log_snr: Callable[[Tensor], Tensor], spacing: str) -> Tensor:
    """Times at which a rising function of the noise is linear in w."""
    last = 1.0 if torch.isfinite(log_snr(torch.ones((), dtype=torch.float64))) else 1 - SMALLEST_TIME
    t = torch.linspace(SMALLEST_TIME, last, 20_001, dtype=torch.float64)
    noise = -log_snr(t)
    if spacing == "karras":
        noise = (noise / (2 * KARRAS_POWER)).exp()
    wanted = noise[0] + (noise[-1] - noise[0]) * w
    times = torch.from_numpy(np.interp(wanted.numpy(), noise.numpy(), t.numpy()))
    return torch.where(w == 1, 1.0, times)
