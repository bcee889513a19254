"""Is the prior where noised data end?"""

import math
from typing import NamedTuple

import torch

from sbbridge.data import AbstractDistribution, Gaussian, StandardNormal
from sbbridge.rng import Stream

TOLERANCE = 0.05
"""Of the noise's standard deviation; a mean may be off by twice as much."""
DRAWS, NUMBERS = 4096, 2**22
"""States that a law is looked at by, and numbers in them, at most."""
KURTOSIS = 0.8
"""How far that of all coordinates together may be from the normal law's 3: uniform noise has 1.8, Laplace's 6."""


class _Shape(NamedTuple):
    """Largest mean of a coordinate, least and largest standard deviation in any direction, kurtosis, exactness."""

    mean: float
    least: float
    largest: float
    kurtosis: float = 3.0
    n: float = math.inf


class NoiseCheck:
    """Remembers what it has found in order: a problem is sampled from many times."""

    def __init__(self) -> None:
        self._passed: set[tuple[int, float, float]] = set()

    def require(self, who: str, data: AbstractDistribution, prior: AbstractDistribution, scale: float,
                memory: float) -> None:  # fmt: skip
        """Refuses a prior that is neither N(0, scale^2 I) nor the law of memory x0 + scale eps, up to 5 %.

        Raises:
            ValueError: saying what to pass.
        """
        if (id(prior), scale, memory) in self._passed:
            return
        found = _shape_of(prior)
        if not _within(found, scale, 0.0, 0.0):
            x0 = _draws(data)
            spread = float(torch.linalg.matrix_norm(x0 - x0.mean(0), 2)) / len(x0) ** 0.5
            if not _within(found, scale, memory * float(x0.mean(0).abs().max()), memory * spread):
                least, largest = f"{found.least:.3g}", f"{found.largest:.3g}"
                spreads = least if least == largest else f"{least} to {largest}"
                raise ValueError(
                    f"{who} starts from normal noise of mean 0 and standard deviation {scale:.4g}, where noised data "
                    f"end; the prior's mean is {found.mean:.3g}, its standard deviation {spreads}, its kurtosis "
                    f"{found.kurtosis:.3g} (pass prior=StandardNormal({tuple(prior.shape)}, scale={scale:.4g}))"
                )
        self._passed.add((id(prior), scale, memory))


def _within(found: _Shape, scale: float, mean: float, spread: float) -> bool:
    """Whether a law is that of noise, with remembered data of this mean and this spread at most."""
    few = 1 / found.n**0.5
    low, high = scale * (1 - TOLERANCE - 5 * few), (scale**2 + spread**2) ** 0.5 * (1 + TOLERANCE + 5 * few)
    near = found.mean <= mean + (2 * TOLERANCE + 6 * few) * (scale**2 + spread**2) ** 0.5
    return near and low <= found.least and found.largest <= high and abs(found.kurtosis - 3) <= KURTOSIS


def _shape_of(law: AbstractDistribution) -> _Shape:
    if isinstance(law, StandardNormal):
        return _Shape(0.0, law.scale, law.scale)
    if isinstance(law, Gaussian):
        values = torch.linalg.eigvalsh(law.covariance).clamp(min=0).sqrt()
        return _Shape(float(law.mean.abs().max()), float(values[0]), float(values[-1]))
    try:
        x = _draws(law)
    except TypeError as error:  # it is known by its energy alone
        raise ValueError(f"the prior must be the noise that data end in: {error}") from None
    mean, std = x.mean(0), x.std(0, correction=0).clamp(min=1e-30)
    kurtosis = ((x - mean) / std).pow(4).mean()
    return _Shape(float(mean.abs().max()), float(std.min()), float(std.max()), float(kurtosis), len(x))


def _draws(law: AbstractDistribution) -> torch.Tensor:
    n = min(DRAWS, max(256, NUMBERS // math.prod(law.shape)))
    return law.draw(0, range(n), Stream(0, ("noise check",))).flatten(1).double()
