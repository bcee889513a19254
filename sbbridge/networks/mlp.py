"""A residual multilayer perceptron with a time embedding."""

import math
from dataclasses import dataclass, field
from typing import Literal, final

import torch
from torch import Tensor, nn

from sbbridge.config import Forbid, require, require_finite
from sbbridge.rng import isolated
from sbbridge.types import State, Time


@final
@dataclass(frozen=True)
class MLP(Forbid):
    """Configuration of a `ResidualMLP`.

    Attributes:
        width: hidden units.
        depth: residual blocks of two layers.
        time_frequencies: pairs of sines and cosines that embed the time.
        max_frequency: the fastest of them, in radians per unit of time.
    """

    width: int = 128
    depth: int = 2
    time_frequencies: int = 16
    max_frequency: float = 100.0
    kind: Literal["mlp"] = field(default="mlp", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.width >= 1, f"width must be >= 1, got {self.width}")
        require(self.depth >= 1, f"depth must be >= 1, got {self.depth}")
        require(self.time_frequencies >= 1, f"time_frequencies must be >= 1, got {self.time_frequencies}")
        require(self.max_frequency > 1, f"max_frequency must be > 1, got {self.max_frequency}")

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """States of any shape will do."""

    def build(self, shape: tuple[int, ...], seed: int) -> "ResidualMLP":
        """A network for states of this shape; its weights depend on the seed alone."""
        with isolated(seed):
            return ResidualMLP(self, math.prod(shape))


@final
class ResidualMLP(nn.Module):
    """(t, x) -> a state of x's shape; zero everywhere when new, because both output layers start at zero.

    out = W_out SiLU(h_L) + (1 + s(t)) W_skip x, with h_{l+1} = h_l + W_2 SiLU(W_1 h_l + b_l(t)). The skip makes
    fields that are linear in x, as Gaussian bridges have, easy to represent at any distance from the origin.
    """

    frequencies: Tensor

    def __init__(self, config: MLP, dimension: int) -> None:
        super().__init__()
        frequencies = torch.logspace(0, math.log10(config.max_frequency), config.time_frequencies)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.depth = config.depth
        self.embed = nn.Sequential(nn.Linear(2 * config.time_frequencies + 1, config.width), nn.SiLU())
        self.modulate = nn.Linear(config.width, config.depth * config.width + dimension)
        self.inner = nn.Linear(dimension, config.width)
        self.first = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth))
        self.second = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(config.depth))
        self.outer = nn.Linear(config.width, dimension)
        self.skip = nn.Linear(dimension, dimension, bias=False)
        for layer in (self.outer, self.skip):
            nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, t: Time, x: State) -> State:
        """The field at (t, x); one time for the whole batch is embedded once."""
        flat = x.flatten(1)
        width = self.inner.out_features
        *shifts, scale = self.modulate(self.embed(self._features(t, flat))).split(
            [width] * self.depth + [flat.shape[1]], 1
        )
        hidden = self.inner(flat)
        for first, second, shift in zip(self.first, self.second, shifts, strict=True):
            hidden = hidden + second(nn.functional.silu(first(hidden) + shift))
        out = self.outer(nn.functional.silu(hidden)) + (1 + scale) * self.skip(flat)
        return out.view_as(x)

    def _features(self, t: Time, like: Tensor) -> Tensor:
        t = t.to(like).reshape(-1, 1)
        angles = t * self.frequencies.to(like)
        return torch.cat([2 * t - 1, angles.sin(), angles.cos()], dim=1)
