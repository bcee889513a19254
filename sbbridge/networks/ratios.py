"""Scalar functions of a node that say its ratio: a table, KANs, an MLP. Called as (t, node): `[n]`, `[n, 1]`."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, final

import torch
from torch import Tensor, nn

from sbbridge.config import Forbid, require, require_finite
from sbbridge.networks.kan import EfficientKANLayer, pykan
from sbbridge.rng import isolated

WIDTHS = (1, 4, 16, 4, 1)
"""The paper's, of KANs."""


@final
@dataclass(frozen=True)
class RatioTable(Forbid):
    """One logit a node: 2N numbers for a path, and nothing shared between nodes."""

    kind: Literal["table"] = field(default="table", kw_only=True, repr=False)

    def build(self, shape: tuple[int, ...], seed: int) -> nn.Module:
        """A table for `shape[0]` nodes, all ratios ½."""
        return _Table(shape[0])


@dataclass(frozen=True)
class _Splines(Forbid):
    """The options of both KANs.

    Attributes:
        grid_size: intervals of a spline; the paper: twice the number of steps.
        widths: of the layers, from 1 to 1.
    """

    grid_size: int = 20
    widths: tuple[int, ...] = WIDTHS

    def __post_init__(self) -> None:
        require_finite(self)
        require(self.grid_size >= 1, f"grid_size must be >= 1, got {self.grid_size}")
        ends = self.widths[:1] + self.widths[-1:]
        require(
            len(self.widths) >= 2 and min(self.widths) >= 1 and ends == (1, 1),
            f"widths must lead from 1 to 1 through widths >= 1, got {list(self.widths)}",
        )


@final
@dataclass(frozen=True)
class KAN(_Splines):
    """A Kolmogorov–Arnold network of pykan with cubic splines on [0, 1] and a sigmoid at the end (LDSB, Sec. 4)."""

    kind: Literal["kan"] = field(default="kan", kw_only=True, repr=False)

    def build(self, shape: tuple[int, ...], seed: int) -> nn.Module:
        """A network whose weights depend on the seed alone."""
        return _OfTime(pykan(self.widths, self.grid_size, seed), shape, squash=True)


@final
@dataclass(frozen=True)
class EfficientKAN(_Splines):
    """The layout of the authors' released checkpoints: base weight, spline weight and scaler of an edge; sigmoid."""

    kind: Literal["efficient_kan"] = field(default="efficient_kan", kw_only=True, repr=False)

    def build(self, shape: tuple[int, ...], seed: int) -> nn.Module:
        """A network whose weights depend on the seed alone."""
        with isolated(seed):
            layers = [EfficientKANLayer(a, b, self.grid_size) for a, b in pairwise(self.widths)]
        return _OfTime(_Layers(layers), shape, squash=True)


@final
@dataclass(frozen=True)
class RatioMLP(Forbid):
    """The paper's rival of its KAN: tanh layers 1-16-64-64-16-1, Xavier weights.

    Attributes:
        hidden: widths of the hidden layers.
        squash: a sigmoid at the end; the paper's MLP has none, so that its ratios are not bound to (0, 1).
    """

    hidden: tuple[int, ...] = (16, 64, 64, 16)
    squash: bool = True
    kind: Literal["ratio_mlp"] = field(default="ratio_mlp", kw_only=True, repr=False)

    def __post_init__(self) -> None:
        require(len(self.hidden) > 0 and min(self.hidden) >= 1, f"hidden must be widths >= 1, got {list(self.hidden)}")

    def build(self, shape: tuple[int, ...], seed: int) -> nn.Module:
        """A network whose weights depend on the seed alone."""
        layers: list[nn.Module] = []
        with isolated(seed):
            for a, b in zip((1, *self.hidden), (*self.hidden, 1), strict=True):
                layers += [nn.Linear(a, b), nn.Tanh()]
                nn.init.xavier_normal_(layers[-2].weight)  # type: ignore[arg-type]
        return _OfTime(nn.Sequential(*layers[:-1]), shape, self.squash)


class _Table(nn.Module):
    def __init__(self, nodes: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(nodes))

    @torch.no_grad()
    def assign(self, ratios: Tensor) -> None:
        """Makes the table say these ratios, `[nodes]`."""
        self.logits.copy_(torch.logit(ratios.double(), eps=1e-9).to(self.logits))

    def forward(self, t: Tensor, node: Tensor) -> Tensor:
        return torch.sigmoid(self.logits[node.reshape(-1).long()])[:, None]


class _Layers(nn.Module):
    """KAN layers under the released checkpoints' names."""

    def __init__(self, layers: list[EfficientKANLayer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _OfTime(nn.Module):
    """A function of the input, plus a fixed number for each node that `shift` sets; a sigmoid over both."""

    offset: Tensor

    def __init__(self, inner: nn.Module, shape: tuple[int, ...], squash: bool) -> None:
        super().__init__()
        self.inner, self.squash = inner, squash
        # the authors' files are read before their number of nodes is known, and have no offsets
        self.register_buffer("offset", torch.zeros(shape), persistent=len(shape) > 0)

    @torch.no_grad()
    def shift(self, t: Tensor, node: Tensor, ratios: Tensor) -> None:
        """Makes the network say these ratios at these nodes, by what its own function is from them."""
        wanted = torch.logit(ratios.double(), eps=1e-9) if self.squash else ratios.double()
        self.offset[node.reshape(-1).long()] = (wanted - self._inner(t)[:, 0]).to(self.offset)

    def forward(self, t: Tensor, node: Tensor) -> Tensor:
        value = self._inner(t) + (self.offset[node.reshape(-1).long()][:, None] if self.offset.dim() else 0.0)
        return torch.sigmoid(value) if self.squash else value

    def _inner(self, t: Tensor) -> Tensor:
        with torch.autocast(t.device.type, enabled=False):  # in bfloat16 a ratio would be off by 0.1 % and more
            value: Tensor = self.inner(t.to(torch.get_default_dtype()).reshape(-1, 1))
        return value
