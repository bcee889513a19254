"""Priors that are known by their energy."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import final

import numpy as np
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


@final
class DoubleWell(AbstractDistribution):
    """Two wells on the plane, p(x) ∝ exp(−E(x)), E(x) = height (x_0^2 − 1)^2 + x_1^2 / 2: independent coordinates.

    Args:
        height: of the barrier between the wells at x_0 = ±1.

    Raises:
        ValueError: height is not positive.
    """

    REACH, POINTS = 4.0, 20_001

    def __init__(self, height: float = 2.0) -> None:
        if not height > 0:
            raise ValueError(f"height must be > 0, got {height}")
        self.height = height

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    def energy(self, x: State) -> Tensor:
        """E, `[batch, 2]` -> `[batch]`."""
        return self.height * (x[:, 0].square() - 1).square() + x[:, 1].square() / 2

    def score(self, x: State) -> State:
        """−∇E(x)."""
        return torch.stack([-4 * self.height * x[:, 0] * (x[:, 0].square() - 1), -x[:, 1]], dim=1)

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        """x_0 by its distribution function, inverted on a grid; x_1 is standard normal."""
        level = stream.child("level").uniform(step, rows)
        grid, function = self._distribution
        first = torch.from_numpy(np.interp(level.double().cpu().numpy(), function, grid)).to(level.device)
        second = stream.child("second").normal(step, rows, ())
        return torch.stack([first, second.double()], dim=1)

    @cached_property
    def _distribution(self) -> tuple[np.ndarray, np.ndarray]:
        """Points of x_0 and the distribution function there, by the trapezoidal rule."""
        grid = np.linspace(-self.REACH, self.REACH, self.POINTS)
        density = np.exp(-self.height * (grid**2 - 1) ** 2)
        function = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
        return grid, function / function[-1]


def double_well(height: float = 2.0) -> EnergyPrior:
    """Two wells as a prior of which a method sees the energy's gradient; samples serve to judge and to start from."""
    law = DoubleWell(height)
    return EnergyPrior(law.energy, law.shape, sampler=law)
