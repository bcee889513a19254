"""Function approximators (t, x) -> a state, and averages of their weights."""

from typing import Annotated, TypeAlias

from pydantic import Field

from sbbridge.networks.ema import Averaging, averaged
from sbbridge.networks.fields import Part, ResidualField
from sbbridge.networks.mlp import MLP, ResidualMLP
from sbbridge.networks.unet import UNet

Network: TypeAlias = Annotated[MLP | UNet, Field(discriminator="kind")]
"""Any network, as a configuration `{"kind": mlp | unet, …}`."""

__all__ = ["MLP", "Averaging", "Network", "Part", "ResidualField", "ResidualMLP", "UNet", "averaged"]
