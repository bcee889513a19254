"""Numerical integration: one scheme a file, one loop for all."""

from typing import Literal, TypeAlias

from sbbridge.solvers import ancestral, ddim, euler_maruyama, exponential, heun
from sbbridge.solvers.base import Dynamics, Step, integrate
from sbbridge.solvers.fields import MEMORYLESS, SMALLEST_TIME, denoise, noise_path, reference_path, velocity
from sbbridge.solvers.grid import time_grid

ForwardScheme: TypeAlias = Literal["exponential_heun", "exponential", "euler_maruyama"]
BackwardScheme: TypeAlias = Literal[
    "ancestral", "exponential", "exponential_heun", "euler_maruyama", "heun", "euler", "ddim", "edm_heun", "one_step"
]

FORWARD: dict[str, Step] = {
    "exponential_heun": exponential.heun_forward,
    "exponential": exponential.forward,
    "euler_maruyama": euler_maruyama.forward,
}
BACKWARD: dict[str, Step] = {
    "ancestral": ancestral.backward,
    "exponential": exponential.backward,
    "exponential_heun": exponential.heun_backward,
    "euler_maruyama": euler_maruyama.backward,
    "heun": heun.backward,
    "euler": heun.euler,
    "ddim": ddim.backward,
    "edm_heun": heun.edm,
    "one_step": heun.generator,
}

__all__ = [
    "BACKWARD", "FORWARD", "MEMORYLESS", "SMALLEST_TIME", "BackwardScheme", "Dynamics", "ForwardScheme", "Step",
    "denoise", "integrate", "noise_path", "reference_path", "time_grid", "velocity",
]  # fmt: skip
