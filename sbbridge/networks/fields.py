"""Networks with a known part and a known scale of their input: what is learned is the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from sbbridge.types import Field, State, Time, expand_like


@final
@dataclass(frozen=True)
class Part:
    """What a method knows of a field before training.

    Attributes:
        known: added to the network's value.
        input_scale: c(t), such that c(t) x has about unit variance; None is 1.
    """

    known: Field | None = None
    input_scale: Callable[[Time], Tensor] | None = None


@final
class ResidualField(nn.Module):
    """(t, x) -> network(t, c(t) x) + known(t, x)."""

    def __init__(self, network: nn.Module, part: Part) -> None:
        super().__init__()
        self.network = network
        self.part = part

    def forward(self, t: Time, x: State) -> State:
        """The field at (t, x)."""
        scale, known = self.part.input_scale, self.part.known
        out: State = self.network(t, x if scale is None else expand_like(scale(t), x) * x)
        return out if known is None else out + known(t, x)
