"""Function approximators (t, x) -> a state, and averages of their weights."""

from typing import TypeAlias

from sbbridge.networks.ema import averaged
from sbbridge.networks.fields import ResidualField
from sbbridge.networks.mlp import MLP, ResidualMLP

Network: TypeAlias = MLP
"""Any network, as a configuration `{"kind": mlp, …}`."""

__all__ = ["MLP", "Network", "ResidualField", "ResidualMLP", "averaged"]
