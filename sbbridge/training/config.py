"""How networks are optimised."""

from dataclasses import dataclass
from typing import Literal, final

from sbbridge.config import Forbid, require, require_finite


@final
@dataclass(frozen=True)
class Training(Forbid):
    """Options of the optimiser loop, the same for every stage and method.

    Attributes:
        batch_size: global, however many workers share it.
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        schedule: cosine (each stage anneals to a hundredth) or constant.
        gradient_clip: largest gradient norm; 0 is none.
        ema_decay: of the averaged weights.
        checkpoint_seconds: a checkpoint at least this often, and at the end of every stage.
    """

    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float = 0.0
    ema_decay: float = 0.995
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.batch_size >= 1, f"batch_size must be >= 1, got {self.batch_size}")
        require(self.learning_rate > 0, f"learning_rate must be > 0, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay}")
        require(self.gradient_clip >= 0, f"gradient_clip must be >= 0, got {self.gradient_clip}")
        require(0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), got {self.ema_decay}")
        require(self.checkpoint_seconds > 0, f"checkpoint_seconds must be > 0, got {self.checkpoint_seconds}")
