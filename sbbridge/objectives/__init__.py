"""What is minimised: pairs in, regressions out; pure functions that know neither optimiser nor network."""

from sbbridge.objectives.adjoint import adjoint_matching
from sbbridge.objectives.base import Regression
from sbbridge.objectives.bridge import backward_bridge_matching, forward_bridge_matching
from sbbridge.objectives.corrector import corrector_matching
from sbbridge.objectives.score import denoising_score_matching

__all__ = [
    "Regression", "adjoint_matching", "backward_bridge_matching", "corrector_matching", "denoising_score_matching",
    "forward_bridge_matching",
]  # fmt: skip
