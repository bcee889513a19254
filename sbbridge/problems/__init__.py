"""What is to be solved, and sometimes the answer."""

from sbbridge.problems.denoising import DenoisingProblem, unit_noise
from sbbridge.problems.gaussian import GaussianBridge
from sbbridge.problems.mixture import MixtureBridge
from sbbridge.problems.named import gaussian64, mixture_pair
from sbbridge.problems.problem import BridgeProblem

__all__ = [
    "BridgeProblem", "DenoisingProblem", "GaussianBridge", "MixtureBridge", "gaussian64", "mixture_pair", "unit_noise",
]  # fmt: skip
