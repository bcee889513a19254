"""Shapes by name, and the one place where a time is broadcast against a state.

Conventions, everywhere: t = 0 is data and t = 1 is the prior; arguments come in the order (t, x); states are
`[batch, *shape]`, times are `[batch]`, trajectories are `[time, batch, *shape]`.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

State: TypeAlias = Tensor
"""A batch of states, `[batch, *shape]`."""
Time: TypeAlias = Tensor
"""A batch of times, `[batch]`, or one time, `[]`."""
Field: TypeAlias = Callable[[Time, State], State]
"""A vector field (t, x) -> a state: a control, a score, a velocity."""


class Pair(NamedTuple):
    """End points of paths: x0 at the data end, x1 at the prior end, row by row."""

    x0: State
    x1: State


def as_time(t: Tensor | float) -> Tensor:
    """A time as float64: schedules are computed in double precision, then cast to the state's type."""
    return torch.as_tensor(t, dtype=torch.float64)


def expand_like(coefficient: Tensor, x: State) -> Tensor:
    """A coefficient `[batch]` or `[]`, cast to x's type and shaped to multiply x `[batch, *shape]`."""
    coefficient = coefficient.to(device=x.device, dtype=x.dtype)
    return coefficient.reshape(-1, *[1] * (x.dim() - 1)) if coefficient.dim() else coefficient
