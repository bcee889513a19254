"""Multistep samplers for denoisers, driven through diffusers' schedulers."""

from importlib import import_module
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from sbbridge.solvers import Dynamics, Step, denoise, noise_path
from sbbridge.solvers.base import Noise
from sbbridge.types import State, Time, expand_like

MultistepScheme: TypeAlias = Literal["dpm_solver_pp", "dpm_solver_pp_3", "unipc"]
MULTISTEP: tuple[str, ...] = get_args(MultistepScheme)
_SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm_solver_pp": ("DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpm_solver_pp_3": ("DPMSolverMultistepScheduler", {"solver_order": 3}),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2}),
}
_SIGMA_RANGE = (1e-4, 1 - 1e-6)  # the schedulers take logarithms of sigma and 1 − sigma


def multistep(scheme: str, dynamics: Dynamics, times: Tensor) -> Step:
    """A step function with memory, for one integration along these times.

    The scheduler sees y = x / (a + b), for which y = (1 − sigma) x0 + sigma eps with sigma = b / (a + b): its
    flow-matching convention, in which any path x_t = a x0 + b eps with any nodes can be expressed exactly.
    DPM-Solver++ (Lu et al. 2022b), UniPC (Zhao et al. 2023).

    Raises:
        ValueError: the reference is not memoryless.
    """
    path = noise_path(dynamics, scheme)
    name, options = _SCHEDULERS[scheme]
    kind: Any = getattr(import_module("diffusers"), name)
    dtype = torch.get_default_dtype()  # of what the schedulers make themselves
    nodes = times[:-1][times[:-1] > 0]
    sigmas = path.scale(nodes) / (path.mean(nodes) + path.scale(nodes))
    scheduler = kind(prediction_type="sample", use_flow_sigmas=True, final_sigmas_type="zero", **options)
    scheduler.set_timesteps(max(1, len(sigmas)))
    # only UniPC takes sigmas as an argument; either reads nothing but this attribute afterwards
    scheduler.sigmas = torch.cat([sigmas.clamp(*_SIGMA_RANGE), sigmas.new_zeros(1)]).to(dtype)
    scheduler.timesteps = torch.arange(len(sigmas))
    scheduler.set_begin_index(0)

    def step(dynamics: Dynamics, t: Time, t_next: Time, x: State, noise: Noise) -> State:
        x0 = denoise(dynamics, t, x)
        if t == 0:  # the last node of `leading` grids: the scheduler has ended there
            return x0
        scale, scale_next = (path.mean(s) + path.scale(s) for s in (t, t_next))
        scaled = (x / expand_like(scale, x)).to(dtype)
        moved: State = scheduler.step(x0.to(dtype), scheduler.step_index or 0, scaled).prev_sample
        return moved.to(x) * expand_like(scale_next, x)

    return step
