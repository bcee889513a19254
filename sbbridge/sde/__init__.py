"""Reference processes dX = f dt + g dW, their bridges, and the processes that learned fields make of them."""

from typing import Annotated, TypeAlias

from pydantic import Field

from sbbridge.sde.base import AbstractLinearSDE
from sbbridge.sde.brownian import BrownianMotion
from sbbridge.sde.controlled import ControlledSDE, ProbabilityFlowODE, ReverseSDE
from sbbridge.sde.ddpm import DDPM
from sbbridge.sde.linear import LinearSDE
from sbbridge.sde.ve import VESDE
from sbbridge.sde.vp import VPSDE

Reference: TypeAlias = Annotated[VPSDE | BrownianMotion | VESDE | LinearSDE | DDPM, Field(discriminator="kind")]
"""Any reference process, as a configuration `{"kind": vp | brownian | ve | linear | ddpm, …}`."""

__all__ = [
    "DDPM", "VESDE", "VPSDE", "AbstractLinearSDE", "BrownianMotion", "ControlledSDE", "LinearSDE", "ProbabilityFlowODE",
    "Reference", "ReverseSDE",
]  # fmt: skip
