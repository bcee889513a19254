"""Fréchet distances between sets of images, with their floor."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sbbridge.metrics.features import Features
from sbbridge.metrics.gaussian import frechet_distance


@final
@dataclass(frozen=True)
class FeatureMoments:
    """Mean and covariance of a set's features."""

    mean: Tensor
    covariance: Tensor
    n: int

    @classmethod
    def of(cls, features: npt.NDArray[np.float64]) -> "FeatureMoments":
        """Moments of features `[n, d]`; needs n >= 2."""
        if len(features) < 2:
            raise ValueError(f"a Fréchet distance needs at least 2 images, got {len(features)}")
        x = torch.from_numpy(features)
        return cls(x.mean(0), torch.cov(x.mT).reshape(x.shape[1], -1), len(features))

    def distance(self, other: "FeatureMoments") -> float:
        """The Fréchet distance, by eigenvalues."""
        return frechet_distance(self.mean, self.covariance, other.mean, other.covariance)


@final
class FrechetJudge:
    """Fréchet distance to a fixed set of real images, always at that set's size.

    Distances at different n do not compare, so generated images are judged `n = len(real)` at a time and averaged over
    draws; the floor is as many other real images against the same set.
    """

    def __init__(self, real: Tensor, features: Features, name: str) -> None:
        self.name, self.n = name, len(real)
        self._features = features
        self._real = FeatureMoments.of(features(real))

    def distance(self, generated: Tensor) -> tuple[float, int]:
        """Mean distance over the draws in `generated` (a multiple of n images), and n; NaN if one is not finite."""
        if len(generated) % self.n:
            raise ValueError(f"expected a multiple of {self.n} images, got {len(generated)}")
        if not torch.isfinite(generated).all():  # features of the user's own may make numbers of it
            return math.nan, self.n
        features = self._features(generated)
        draws = np.split(features, len(features) // self.n)
        return float(np.mean([FeatureMoments.of(draw).distance(self._real) for draw in draws])), self.n

    def floor(self, other_real: Tensor) -> tuple[float, int]:
        """Other real images against these, at most n of them, and their number."""
        features = self._features(other_real[: self.n])
        return FeatureMoments.of(features).distance(self._real), len(features)
