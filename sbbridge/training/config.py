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
        accumulate: parts that a batch is computed in, one after the other, where it does not fit at once; results
            agree with one part to rounding, but for dropout's masks.
        precision: bfloat16 autocasts networks in training and simulation; weights and losses stay float32.
        compile: torch.compile the networks in training (minutes at first; pays on GPUs and in long trainings).
        budget: network evaluations of a whole training, simulation included: the method's last fit is as long as they
            allow; without one, the method's own epochs count.
        channels_last: the memory format that convolutions prefer on GPUs.
    """

    batch_size: int = 512
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    gradient_clip: float = 0.0
    ema_decay: float = 0.995
    checkpoint_seconds: float = 60.0
    accumulate: int = 1
    budget: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    channels_last: bool = False

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.batch_size >= 1, f"batch_size must be >= 1, got {self.batch_size}")
        require(self.learning_rate > 0, f"learning_rate must be > 0, got {self.learning_rate}")
        require(self.weight_decay >= 0, f"weight_decay must be >= 0, got {self.weight_decay}")
        require(self.gradient_clip >= 0, f"gradient_clip must be >= 0, got {self.gradient_clip}")
        require(0 <= self.ema_decay < 1, f"ema_decay must be in [0, 1), got {self.ema_decay}")
        require(self.checkpoint_seconds > 0, f"checkpoint_seconds must be > 0, got {self.checkpoint_seconds}")
        require(self.budget is None or self.budget >= 1, f"budget must be >= 1, got {self.budget}")
        require(
            1 <= self.accumulate <= self.batch_size,
            f"accumulate must be in 1 … batch_size = {self.batch_size}, got {self.accumulate}",
        )
