"""Function approximators (t, x) -> a state, and averages of their weights."""

from typing import Annotated, TypeAlias

from pydantic import Field

from sbbridge.networks.ema import Averaging, averaged
from sbbridge.networks.fields import Part, ResidualField
from sbbridge.networks.mlp import MLP, ResidualMLP
from sbbridge.networks.ratios import KAN, EfficientKAN, RatioMLP, RatioTable
from sbbridge.networks.unet import UNETS, UNet

FieldNetwork: TypeAlias = Annotated[MLP | UNet, Field(discriminator="kind")]
"""A network for fields, as a configuration `{"kind": mlp | unet, …}`."""
Network: TypeAlias = Annotated[MLP | UNet | KAN | EfficientKAN | RatioMLP | RatioTable, Field(discriminator="kind")]
"""Any network: for fields, or for the ratios of LDSB's path (`{"kind": kan | efficient_kan | ratio_mlp | table}`)."""

__all__ = [
    "KAN", "MLP", "UNETS", "Averaging", "EfficientKAN", "FieldNetwork", "Network", "Part", "RatioMLP", "RatioTable",
    "ResidualField", "ResidualMLP", "UNet", "averaged",
]  # fmt: skip
