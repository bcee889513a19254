"""Networks with a known part: what is learned is the rest."""

from typing import final

from torch import nn

from sbbridge.types import Field, State, Time


@final
class ResidualField(nn.Module):
    """(t, x) -> network(t, x) + known(t, x)."""

    def __init__(self, network: nn.Module, known: Field | None) -> None:
        super().__init__()
        self.network = network
        self.known = known

    def forward(self, t: Time, x: State) -> State:
        """The field at (t, x)."""
        out: State = self.network(t, x)
        return out if self.known is None else out + self.known(t, x)
