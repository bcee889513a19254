"""Can two samples be told apart? Sliced W2 against its permutation null, and a classifier on held-out rows."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sbbridge.rng import Stream
from sbbridge.types import State

PERMUTATIONS = 19
"""A distance above all of 19 permuted ones happens to equal laws with probability 1/20, whatever n and d."""
CLASSIFIER_ROWS = 8192
_PENALTY = {"norm": 0.01, "shift": 0.03, "direction": 1.0, "coordinate": 10.0}
"""Many features hide a small difference in one: the more there are of a kind, the more each is held back."""


@dataclass(frozen=True)
class SlicedWasserstein:
    """Sliced W2 between two samples, beside what samples of one law show.

    Attributes:
        distance: between the two samples, in the units of the state.
        null: the mean over random divisions of the pooled samples into two of the same size.
        limit: the largest of these; `distance` exceeds it with probability 1/20 when both laws are equal.
    """

    distance: float
    null: float
    limit: float


@dataclass(frozen=True)
class ClassifierTest:
    """How often a classifier tells which of two samples a held-out row comes from.

    Attributes:
        accuracy: on held-out rows; ½ is chance.
        standard_error: of the accuracy at chance, ½ / sqrt(held-out rows).
    """

    accuracy: float
    standard_error: float

    @property
    def indistinguishable(self) -> bool:
        """|accuracy − ½| <= 2 standard errors; equal laws fail this with probability 0.05 at most."""
        return abs(self.accuracy - 0.5) <= 2 * self.standard_error


def sliced_wasserstein(x: State, y: State, projections: int = 64, seed: int = 0) -> SlicedWasserstein:
    """(E_v W2^2(v·x, v·y))^½ over random directions v (Bonneel et al. 2015, Sec. 3), with its null.

    The null is of the same n: x and y are pooled and divided at random. When x has y's law these are independent
    samples of it, so the comparison is exact at any n and d; a fixed factor is not (in low d the ratio scatters more).
    Directions are orthogonal, d at a time, which scatters less (Rowland et al. 2019).

    Samples that are not finite have no distance: all three are NaN.

    Args:
        x, y: `[n, *shape]`.

    Raises:
        ValueError: samples of unequal size, or none; fewer than one projection.
    """
    n, pooled = len(x), torch.cat([x.flatten(1), y.flatten(1)]).cpu().float()
    if len(pooled) != 2 * n or n < 1:
        raise ValueError(f"samples must have equal size and not be empty, got {n} and {len(y)}")
    if projections < 1:
        raise ValueError(f"projections must be >= 1, got {projections}")
    if not torch.isfinite(pooled).all():
        return SlicedWasserstein(math.nan, math.nan, math.nan)
    stream = Stream(seed, ("sliced wasserstein",))
    sorted_, order_ = (_orthogonal_directions(pooled.shape[1], projections, stream) @ pooled.mT).sort(dim=1)
    values, order = sorted_.numpy().ravel(), order_.numpy().ravel()

    def distance(first: npt.NDArray[np.bool_]) -> float:
        inside = first.take(order)
        difference = np.compress(inside, values) - np.compress(~inside, values)
        return float(np.linalg.norm(difference) / len(difference) ** 0.5)

    given = np.arange(2 * n) < n
    null = [distance(given[stream.permutation(i, 2 * n).numpy()]) for i in range(PERMUTATIONS)]
    return SlicedWasserstein(distance(given), sum(null) / len(null), max(null))


def classifier_two_sample(x: State, y: State, seed: int = 0) -> ClassifierTest:
    """Trains a classifier on some rows and tests it on others (Lopez-Paz and Oquab 2017, Sec. 3).

    Half of the rows choose directions w: between the means, where the covariances differ most, and where kurtosis is
    extreme. A quarter fits a penalised logistic regression on |x|^2, |x|^4, coordinates, their squares, and s, |s|,
    s^2, s^4 of s = w·x. The last quarter tests it. A hidden two-humped direction is found at n = 8192, d = 64, where a
    small network trained for as long finds nothing.

    Args:
        x, y: `[n, *shape]`; at most 8,192 rows of each are used, and fewer than 4 tell nothing (½ ± ½). NaN ± NaN where
            they are not finite.

    Raises:
        ValueError: samples of unequal size.
    """
    if len(x) != len(y):
        raise ValueError(f"samples must have equal size, got {len(x)} and {len(y)}")
    n = min(len(x), CLASSIFIER_ROWS)
    if n < 4:
        return ClassifierTest(0.5, 0.5)
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        return ClassifierTest(math.nan, math.nan)
    rows = Stream(seed, ("classifier",)).permutation(0, len(x))[:n]
    a, b = (z.flatten(1)[rows.to(z.device)].cpu().double() for z in (x, y))
    unit = torch.cat([a, b]).std().clamp(min=1e-30)  # fourth powers overflow in the state's own units
    a, b = (a / unit).float(), (b / unit).float()
    half, cut = n // 2, 3 * n // 4
    between, within = _between(a[:half], b[:half]), (_kurtosis_directions(z[:half]) for z in (a, b))
    directions = torch.cat([between, *within])
    train, test = (_features(torch.cat([a[part], b[part]]), directions) for part in (slice(half, cut), slice(cut, n)))
    mean, scale = train.mean(0), train.std(0).clamp(min=1e-12) * _penalties(a.shape[1], len(directions)).sqrt()
    accuracy = _logistic_accuracy((train - mean) / scale, (test - mean) / scale)
    return ClassifierTest(accuracy, 0.5 / len(test) ** 0.5)


def _orthogonal_directions(d: int, count: int, stream: Stream) -> Tensor:
    """Uniform unit directions `[count, d]`, orthogonal within blocks of d."""
    generator = stream.generator()
    blocks = [torch.linalg.qr(torch.randn(d, min(d, count), generator=generator)).Q.mT for _ in range(-(-count // d))]
    return torch.cat(blocks)[:count]


def _logistic_accuracy(train: Tensor, test: Tensor) -> float:
    """Accuracy on test; in both, the first half of the rows is one class and the second half the other."""
    from sklearn.linear_model import LogisticRegression

    labels, truth = (torch.arange(len(z)) < len(z) // 2 for z in (train, test))
    model = LogisticRegression(C=1 / len(train), max_iter=50, tol=1e-3).fit(train.numpy(), labels.numpy())
    return float((model.predict(test.numpy()) == truth.numpy()).mean())


def _features(x: Tensor, directions: Tensor) -> Tensor:
    norm = x.square().mean(1, keepdim=True)
    s = x @ directions.mT
    return torch.cat([norm, norm**2, s, s.abs(), s**2, s**4, x, x**2], dim=1)


def _penalties(d: int, directions: int) -> Tensor:
    """Of each feature; the first direction is the shift of the mean."""
    along = [_PENALTY["shift"], *[_PENALTY["direction"]] * (directions - 1)]
    return torch.tensor([_PENALTY["norm"]] * 2 + along * 4 + [_PENALTY["coordinate"]] * 2 * d)


def _between(x: Tensor, y: Tensor, each: int = 2) -> Tensor:
    """Unit directions `[<= 1 + 2 each, d]`: between the means, and along which the covariances differ most."""
    shift = torch.nn.functional.normalize(x.mean(0, keepdim=True) - y.mean(0), dim=1)
    difference = torch.cov(x.mT, correction=0) - torch.cov(y.mT, correction=0)
    return torch.cat([shift, _extremes(difference.reshape(x.shape[1], -1), each)])


def _kurtosis_directions(x: Tensor, each: int = 4, refinements: int = 10) -> Tensor:
    """Directions `[<= 2 each, d]` of extreme kurtosis.

    Extreme eigenvectors of E |z|^2 z z^T of the whitened rows z (FOBI, Cardoso 1989), each refined by the fixed point
    w <- E z (w·z)^3 − 3 w (FastICA, Hyvärinen and Oja 1997).
    """
    values, vectors = torch.linalg.eigh(torch.cov(x.mT, correction=0).reshape(x.shape[1], -1))
    whitening = vectors / values.clamp(min=1e-6 * float(values[-1]) + 1e-30).sqrt()
    z = (x - x.mean(0)) @ whitening
    w = _extremes((z * z.square().sum(1, keepdim=True)).mT @ z / len(z), each).mT
    for _ in range(refinements):
        w = torch.nn.functional.normalize(z.mT @ (z @ w) ** 3 / len(z) - 3 * w, dim=0)
    return torch.nn.functional.normalize(whitening @ w, dim=0).mT


def _extremes(symmetric: Tensor, each: int) -> Tensor:
    _, vectors = torch.linalg.eigh((symmetric + symmetric.mT) / 2)
    chosen = vectors.mT
    return chosen if len(chosen) <= 2 * each else torch.cat([chosen[:each], chosen[-each:]])
