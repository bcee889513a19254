"""A prior that is known by its energy only."""

from collections.abc import Callable, Sequence
from typing import final

import torch
from torch import Tensor

from sbbridge.data.base import AbstractDistribution
from sbbridge.rng import Stream
from sbbridge.types import State


@final
class EnergyPrior(AbstractDistribution):
    """p(x) ∝ exp(−E(x)); its score needs no samples and no normalising constant.

    Args:
        energy: E, `[batch, *shape]` -> `[batch]`, differentiable.
        shape: of one state.
        sampler: draws exact samples, where there is a way to.

    Raises:
        ValueError: the sampler's states have another shape.
    """

    def __init__(
        self, energy: Callable[[State], Tensor], shape: Sequence[int], sampler: AbstractDistribution | None = None
    ) -> None:
        self.energy, self._shape, self.sampler = energy, tuple(shape), sampler
        if sampler is not None and sampler.shape != self._shape:
            raise ValueError(f"the prior has shape {self._shape} and its sampler {sampler.shape}; they must agree")

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        """Samples of the sampler.

        Raises:
            TypeError: there is none.
        """
        if self.sampler is None:
            raise TypeError("this EnergyPrior has no sampler, so it cannot be sampled, only its score is known")
        return self.sampler.draw(step, rows, stream)

    def score(self, x: State) -> State:
        """−∇E(x), by automatic differentiation; keeps no graph, and works where gradients are off.

        Raises:
            ValueError: the energy does not give one number a state.
        """
        with torch.inference_mode(False), torch.enable_grad():
            x = x.detach().clone().requires_grad_()
            energy = self.energy(x)
            if energy.shape != x.shape[:1]:
                raise ValueError(f"the energy must map {tuple(x.shape)} to [{len(x)}], got {tuple(energy.shape)}")
            (gradient,) = torch.autograd.grad(energy.sum(), x)
        return -gradient
