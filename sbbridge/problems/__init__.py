"""What is to be solved, and sometimes the answer."""

from sbbridge.problems.gaussian import GaussianBridge
from sbbridge.problems.mixture import MixtureBridge
from sbbridge.problems.problem import BridgeProblem

__all__ = ["BridgeProblem", "GaussianBridge", "MixtureBridge"]
