"""What the loop sees of the world: workers, a device, and places for checkpoints and numbers."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sbbridge.coupling import Workers


class Reporter:
    """One process, nothing kept: the reporter of a debugger, and the base of the others.

    Attributes:
        workers: who shares this training.
        device: where networks live.
    """

    def __init__(self, workers: Workers | None = None, device: str = "cpu") -> None:
        self.workers = workers or Workers()
        self.device = device

    def save(self, tensors: Mapping[str, Tensor], position: Mapping[str, Any]) -> None:
        """Keeps a checkpoint; called on every worker with equal content."""

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest checkpoint, or None; called on rank 0 alone, the others get what it finds."""
        return None

    def metrics(self, stage: str, step: int, values: Mapping[str, float], n: int | None = None) -> None:
        """Numbers of a stage at a step; called on every worker with equal content."""

    def arrays(self, name: str, arrays: Mapping[str, Tensor]) -> None:
        """Arrays for the report, added to the artefact of this name."""
