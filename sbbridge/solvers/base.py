"""What a scheme sees of a bridge, and the loop that all schemes share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor

from sbbridge.path import LINEAR
from sbbridge.rng import Stream
from sbbridge.sde import AbstractLinearSDE
from sbbridge.types import Field, State, Time


@dataclass(frozen=True)
class Dynamics:
    """A reference process with the fields that steer it; a scheme uses those it needs.

    Attributes:
        reference: dX = f dt + g dW.
        control: u(t, x) -> ∇log phi_t, steers the forward process.
        backward_score: s(t, x) -> ∇log phihat_t, steers the backward process.
        velocity: dx/dt of an ODE that was learned as such, along (1 − t) x0 + t x1; the reference plays no part in it.
        generator: (1, x1) -> x0 in one call, where that is all there is.
    """

    reference: AbstractLinearSDE
    control: Field | None = None
    backward_score: Field | None = None
    velocity: Field | None = None
    generator: Field | None = None

    def log_snr(self, t: Time) -> Tensor:
        """Of the path on which backward schemes move; grids of nodes are made of it."""
        return LINEAR.log_snr(t) if self.velocity is not None else self.reference.log_snr(t)


Noise: TypeAlias = Callable[[], State]
Step: TypeAlias = Callable[[Dynamics, Time, Time, State, Noise], State]
"""step(dynamics, t, t_next, x, noise) -> x at t_next; noise() draws standard normal numbers of x's shape."""


def integrate(step: Step, dynamics: Dynamics, times: Tensor, x: State, rows: range, stream: Stream,
              keep: bool = False) -> tuple[State, Tensor | None]:  # fmt: skip
    """Carries x along the times.

    Args:
        step: one step of a scheme.
        times: `[num_steps + 1]`, in the direction of integration.
        x: states at times[0], `[len(rows), *shape]`.
        rows: which samples these are; their noise depends on (stream, step, row) alone.
        keep: also return the trajectory `[num_steps + 1, batch, *shape]`.
    """
    kept, shape = [x], tuple(x.shape[1:])
    for i, (t, t_next) in enumerate(pairwise(times)):
        x = step(dynamics, t, t_next, x, partial(stream.normal, i, rows, shape))
        if keep:
            kept.append(x)
    return x, torch.stack(kept) if keep else None


def needed(field: Field | None, name: str, scheme: str) -> Field:
    """The field, or an error that says which scheme wants it."""
    if field is None:
        raise ValueError(f"the {scheme} scheme needs the {name}, which this method does not have")
    return field
