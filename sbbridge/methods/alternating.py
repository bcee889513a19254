"""Methods that fit a backward and a forward process in turn."""

import abc
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from sbbridge.config import require, require_finite
from sbbridge.methods.base import Method, Run, Stage
from sbbridge.networks import Network, Part
from sbbridge.problems import BridgeProblem


@dataclass(frozen=True)
class AbstractAlternating(Method):
    """(backward, forward) x iterations, backward: each half learns from paths of the other process.

    Attributes:
        iterations: of backward and forward fits; the last is backward, with `final_epochs`.
        epochs: of one fit.
        final_epochs: of the last backward fit.
        forward_network: of the control, where it differs from the backward network.
    """

    elastic: ClassVar[str] = "final_epochs"

    iterations: int = 8
    epochs: int = 4
    final_epochs: int = 24
    forward_network: Network | None = None

    def __post_init__(self) -> None:
        require_finite(self)
        for name in ("iterations", "epochs", "final_epochs"):
            require(getattr(self, name) >= 1, f"{name} must be >= 1, got {getattr(self, name)}")

    @abc.abstractmethod
    def backward_stage(self, run: Run, turn: int, epochs: int) -> Stage:
        """The backward process, from paths of the forward one; at turn 0 there is none yet."""

    @abc.abstractmethod
    def forward_stage(self, run: Run, turn: int) -> Stage:
        """The forward process, from paths of the backward one."""

    def network_for(self, name: str, network: Network) -> Network:
        """The control may be smaller than the backward network."""
        return network if name == "backward" else self.forward_network or network

    def parts(self, problem: BridgeProblem) -> dict[str, Part]:
        """Two networks."""
        return {"control": Part(), "backward": Part()}

    def stages(self, run: Run) -> Iterator[Stage]:
        """(backward, forward) x iterations, backward."""
        for turn in range(self.iterations):
            yield self.backward_stage(run, turn, self.epochs)
            yield self.forward_stage(run, turn)
        yield self.backward_stage(run, self.iterations, self.final_epochs)
