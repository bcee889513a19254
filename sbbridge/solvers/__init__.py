"""Numerical integration: one scheme a file, one loop for all."""

from typing import Literal, TypeAlias

from sbbridge.solvers import ancestral, ddim, euler_maruyama, exponential, heun
from sbbridge.solvers.base import Dynamics, Step, integrate
from sbbridge.solvers.grid import time_grid

ForwardScheme: TypeAlias = Literal["exponential_heun", "exponential", "euler_maruyama"]
BackwardScheme: TypeAlias = Literal["ancestral", "exponential", "euler_maruyama", "heun", "ddim"]

FORWARD: dict[str, Step] = {
    "exponential_heun": exponential.heun_forward,
    "exponential": exponential.forward,
    "euler_maruyama": euler_maruyama.forward,
}
BACKWARD: dict[str, Step] = {
    "ancestral": ancestral.backward,
    "exponential": exponential.backward,
    "euler_maruyama": euler_maruyama.backward,
    "heun": heun.backward,
    "ddim": ddim.backward,
}

__all__ = ["BACKWARD", "FORWARD", "BackwardScheme", "Dynamics", "ForwardScheme", "Step", "integrate", "time_grid"]
