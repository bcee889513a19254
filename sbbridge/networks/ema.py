"""Exponential moving averages of weights, with a warm-up."""

from typing import final

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(module: nn.Module) -> AveragedModel:
    """A copy of the module whose weights `Averaging` keeps near the average of the module's."""
    return AveragedModel(module).requires_grad_(False).eval()


@final
class Averaging:
    """Moves an average towards its module's weights; step n decays by min(decay, (1 + n) / (10 + n)).

    The lists of weights are made once: `AveragedModel.update_parameters` walks all modules at every step, which takes
    a tenth of a small network's training.
    """

    def __init__(self, average: AveragedModel, module: nn.Module, decay: float) -> None:
        self._average: list[Tensor] = [p.detach() for p in average.module.parameters()]
        self._current: list[Tensor] = [p.detach() for p in module.parameters()]
        self._decay, self._count = decay, average.n_averaged
        self._buffers = list(zip(average.module.buffers(), module.buffers(), strict=True))
        self._n = int(self._count)

    @torch.no_grad()
    def update(self) -> None:
        """One step; the first copies, buffers are always copied."""
        weight = 1 - min(self._decay, (1 + self._n) / (10 + self._n)) if self._n else 1.0
        torch._foreach_lerp_(self._average, self._current, weight)
        for average, current in self._buffers:
            average.copy_(current)
        self._n += 1
        self._count.fill_(self._n)
