"""What is minimised: pairs in, regressions out; pure functions that know neither optimiser nor network."""

from sbbridge.objectives.adjoint import adjoint_matching
from sbbridge.objectives.base import Regression
from sbbridge.objectives.bridge import backward_bridge_matching, forward_bridge_matching
from sbbridge.objectives.corrector import corrector_matching
from sbbridge.objectives.flow import flow_matching
from sbbridge.objectives.ipf import backward_mean_matching, forward_mean_matching
from sbbridge.objectives.score import denoising_score_matching

__all__ = [
    "Regression", "adjoint_matching", "backward_bridge_matching", "backward_mean_matching", "corrector_matching",
    "denoising_score_matching", "flow_matching", "forward_bridge_matching", "forward_mean_matching",
]  # fmt: skip
