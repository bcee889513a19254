"""What a network that others have trained says, and of which time; the denoiser that it then is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor

from sbbridge.path import LINEAR, Denoiser
from sbbridge.path.denoiser import Prediction, Timesteps
from sbbridge.sde import DDPM
from sbbridge.solvers import reference_path
from sbbridge.types import State, Time, as_time, expand_like

Said: TypeAlias = Prediction | Literal["v_prediction"]
_WHOLE = 1e-6  # an index this close to an integer is that integer but for rounding


@final
@dataclass(frozen=True)
class Convention:
    """How a network (x, timestep) -> value is to be understood.

    Attributes:
        said: what its value is; v_prediction is a eps − b x0.
        schedule: whose index it is told; None for velocities, told num_steps · t.
        num_steps: timesteps of its training.
        reversed: the velocity is x0 − eps, and it is told num_steps · (1 − t).
    """

    said: Said
    schedule: DDPM | None
    num_steps: int
    reversed: bool = False

    def denoiser(self, call: Callable[[Tensor, Tensor], Tensor], digest: str) -> Denoiser:
        """The network as a denoiser of times t; a v-prediction becomes a noise predictor: eps = a v + b x."""
        schedule, said = self.schedule, self.said

        def network(timestep: Tensor, x: State) -> State:
            value = call(x.float(), timestep.to(x.device, torch.float32).reshape(-1).expand(len(x)))
            return value.to(x)

        def velocity(t: Time, x: State) -> State:
            if self.reversed:
                return -network(self.num_steps * (1 - as_time(t)), x)
            return network(self.num_steps * as_time(t), x)

        if schedule is None:
            timesteps = None if self.reversed else Timesteps("velocity", chain=False, count=self.num_steps)
            return Denoiser(LINEAR, "velocity", velocity, digest, timesteps=timesteps)
        path = reference_path(schedule)

        def at_index(t: Time, x: State) -> State:
            return network(_index(schedule, t), x)

        def noise_of_v(t: Time, x: State) -> State:
            index = _index(schedule, t)
            told = (index + 1) / schedule.num_steps
            return expand_like(path.mean(told), x) * network(index, x) + expand_like(path.scale(told), x) * x

        if said == "v_prediction":
            return Denoiser(path, "noise", noise_of_v, digest, schedule.num_steps)
        timesteps = Timesteps(said, chain=True, count=schedule.num_steps)
        return Denoiser(path, said, at_index, digest, schedule.num_steps, timesteps)


def _index(schedule: DDPM, t: Time) -> Tensor:
    index = schedule.index(t)
    nearest = index.round()
    # the integer's value, the index's gradient
    whole = index + (nearest - index).detach()
    return torch.where((nearest - index).abs() < _WHOLE, whole, index).clamp(min=0)
