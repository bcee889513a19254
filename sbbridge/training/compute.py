"""How a training step is computed: precision, compilation, memory format."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from sbbridge.training.config import Training
from sbbridge.types import State


@final
@dataclass(frozen=True)
class Compute:
    """What the configuration says of speed, applied to a device."""

    training: Training
    device: str

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 for what tolerates it, where asked for; weights stay float32."""
        if self.training.precision == "float32":
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, torch.bfloat16)

    def prepare(self, network: nn.Module) -> nn.Module:
        """The network in the memory format asked for, in place."""
        if self.training.channels_last:
            network.to(memory_format=torch.channels_last)
        return network

    def compiled(self, model: nn.Module) -> nn.Module:
        """The model as it is called in training."""
        if self.training.compile:
            model.compile()
        return model

    def states(self, x: State) -> State:
        """States in the memory format asked for."""
        return x.contiguous(memory_format=torch.channels_last) if self.training.channels_last and x.dim() == 4 else x
