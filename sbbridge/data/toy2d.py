"""Laws on the plane that are easy to look at."""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch

from sbbridge.data.base import AbstractDistribution
from sbbridge.data.gaussians import GaussianMixture
from sbbridge.rng import Stream
from sbbridge.types import State


def eight_gaussians(radius: float = 5.0, std: float = 0.1**0.25) -> GaussianMixture:
    """Eight equal Gaussians on a circle; radius and spread as in torchcfm."""
    angles = torch.arange(8) * math.pi / 4
    return GaussianMixture([1.0] * 8, radius * torch.stack([angles.cos(), angles.sin()], 1), [std**2] * 8)


@final
@dataclass(frozen=True)
class Toy2D(AbstractDistribution):
    """`checkerboard` (8 squares of [−4, 4]^2), `moons` (noise 0.2, x 3 − 1) or `swiss_roll`."""

    name: Literal["checkerboard", "moons", "swiss_roll"]

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    def draw(self, step: int, rows: range, stream: Stream) -> State:
        u, v = stream.child("u").uniform(step, rows), stream.child("v").uniform(step, rows)
        z = stream.normal(step, rows, (2,))
        points: State = {"checkerboard": _checkerboard, "moons": _moons, "swiss_roll": _swiss_roll}[self.name](u, v)
        noise = {"checkerboard": 0.0, "moons": 0.2 * 3, "swiss_roll": 0.05}[self.name]
        return points.to(z) + noise * z


def _checkerboard(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    x = 8 * u - 4
    which, place = (2 * v).floor(), (2 * v) % 1  # one of the two squares of x's column, and the height in it
    row = 2 * which + (x / 2).floor() % 2
    return torch.stack([x, 2 * (row + place) - 4], 1)


def _moons(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    angle, upper = math.pi * u, v < 0.5
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return 3 * torch.stack([x, y], 1) - 1


def _swiss_roll(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    angle = 1.5 * math.pi * (1 + 2 * u)
    return torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / 5
