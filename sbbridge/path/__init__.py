"""x_t = a x0 + b eps: node grids, conversions between x0, eps, velocity and score, and LDSB's ratio path."""

from sbbridge.path.denoiser import Denoiser
from sbbridge.path.gaussian import LINEAR, GaussianPath
from sbbridge.path.nodes import NODE_GRIDS, node_times
from sbbridge.path.ratio import RatioNodes, RatioPath, ratio_nodes

__all__ = [
    "LINEAR", "NODE_GRIDS", "Denoiser", "GaussianPath", "RatioNodes", "RatioPath", "node_times", "ratio_nodes",
]  # fmt: skip
