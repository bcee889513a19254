"""sbbridge: distributed studies of Schrödinger-bridge generative models.

Conventions, everywhere: t = 0 is data and t = 1 the prior; arguments come in the order (t, x); states are
`[batch, *shape]`, times `[batch]`; dX = (f + g^2 u) dt + g dW with u -> ∇log phi_t forward, drift f − g^2 ∇log phihat_t
backward. Names below are loaded when they are first used, so that importing the package loads no torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ASBM": "methods", "BridgeProblem": "problems", "BrownianMotion": "sde", "DDPM": "sde", "DSB": "methods",
    "DSBMIMF": "methods", "DSBMIPF": "methods", "Denoiser": "path", "DenoisingProblem": "problems",
    "Distillation": "methods", "EfficientKAN": "networks", "EnergyPrior": "data", "ExactIPF": "methods",
    "FlowMatching": "methods", "Gaussian": "data", "GaussianBridge": "problems", "GaussianMixture": "data",
    "Generation": "coupling", "IPF": "methods", "KAN": "networks", "LDSB": "methods", "LinearSDE": "sde",
    "MLP": "networks", "MixtureBridge": "problems", "NoFit": "methods", "OTCFM": "methods", "RandomPaths": "methods",
    "RatioMLP": "networks", "RatioPath": "path", "RatioTable": "networks", "RectifiedFlow": "methods",
    "Reporter": "training", "Samples": "sampling", "ScoreMatchingVE": "methods", "ScoreMatchingVP": "methods",
    "SimplifiedDSB": "methods", "Simulation": "coupling", "Solution": "methods", "StandardNormal": "data",
    "TeacherFit": "methods", "TensorData": "data", "Toy2D": "data", "Training": "training", "UNet": "networks",
    "VESDE": "sde", "VPSDE": "sde", "denoiser_of": "methods", "digits": "data", "eight_gaussians": "data",
    "fit": "training", "photos": "data", "round_trip": "sampling", "sample": "sampling",
}  # fmt: skip

__all__ = sorted([*_HOME, "__version__"])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sbbridge' has no attribute {name!r}")
    value = getattr(import_module(f"sbbridge.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
