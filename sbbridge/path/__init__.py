"""x_t = a x0 + b eps: node grids and conversions between x0, eps and score."""

from sbbridge.path.gaussian import LINEAR, GaussianPath
from sbbridge.path.nodes import NODE_GRIDS, node_times

__all__ = ["LINEAR", "NODE_GRIDS", "GaussianPath", "node_times"]
