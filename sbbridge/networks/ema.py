"""Exponential moving averages of weights, with a warm-up."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def averaged(module: nn.Module, decay: float) -> AveragedModel:
    """An average of the weights; step n decays by min(decay, (1 + n) / (10 + n)), to start near the weights."""

    def update(average: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        n = float(num_averaged)
        torch._foreach_lerp_(list(average), list(current), 1 - min(decay, (1 + n) / (10 + n)))

    typed: Callable[..., None] = torch.no_grad()(update)
    model = AveragedModel(module, multi_avg_fn=typed)
    return model.requires_grad_(False).eval()
