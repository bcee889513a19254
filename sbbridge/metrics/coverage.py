"""Variety: how much of the real law is generated, and how much of what is generated is real."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor

from sbbridge.arguments import finite_rows
from sbbridge.data import GaussianMixture
from sbbridge.metrics.finite import nan_unless_finite
from sbbridge.types import State

SHARE = 0.1
_ROWS = 1024
_SLACK = 1 + 1e-9


class PrecisionRecall(NamedTuple):
    """Precision: share of generated points near a real one; recall: share of real points near a generated one."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """Density: how many real balls hold a generated point, 1 for equal laws; coverage: share of balls that hold one."""

    density: float
    coverage: float


class ClassShares(NamedTuple):
    """Total variation between the shares of the classes, and how many classes keep a tenth of their real share."""

    distance: float
    covered: float


@nan_unless_finite
def precision_recall(real: Tensor, generated: Tensor, k: int = 3) -> PrecisionRecall:
    """A set's support is the union of balls around its points, each out to the point's k-th neighbour in the set.

    Improved precision and recall (Kynkäänniemi et al. 2019, arXiv 1904.06991, Eqs. 1 and 2). They depend on n: show
    other real points against the same ones beside them.

    Args:
        real, generated: features `[n, d]` and `[m, d]`, float64.

    Raises:
        ValueError: no more than k points on either side.
    """
    radius_real, radius_generated = _radii(real, k), _radii(generated, k)
    precise, recalled = 0, torch.zeros(len(real), dtype=torch.bool)
    for distance, _ in _distances(generated, real):
        precise += int((distance <= radius_real).any(1).sum())
    for distance, rows in _distances(real, generated):
        recalled[rows] = (distance <= radius_generated).any(1)
    return PrecisionRecall(precise / len(generated), float(recalled.double().mean()))


@nan_unless_finite
def density_coverage(real: Tensor, generated: Tensor, k: int = 5) -> DensityCoverage:
    """Density and coverage, by balls around the real points out to their k-th neighbour (Naeem et al. 2020, Eqs. 4, 5).

    Expectations for equal laws: density 1; coverage 1 − Π_{i<k} (n − 1 − i) / (n + m − 1 − i), about 1 − 2^−k at n = m.

    Args:
        real, generated: features `[n, d]` and `[m, d]`, float64.

    Raises:
        ValueError: no more than k real points, or no generated one.
    """
    if not len(generated):
        raise ValueError("density and coverage need at least 1 generated point, got 0")
    radius, inside, covered = _radii(real, k), 0, torch.zeros(len(real), dtype=torch.bool)
    for distance, _ in _distances(generated, real):
        within = distance <= radius
        inside += int(within.sum())
        covered |= within.any(0)
    return DensityCoverage(inside / (k * len(generated)), float(covered.double().mean()))


def class_shares(real: Tensor, generated: Tensor, classes: int) -> ClassShares:
    """½ Σ_c |share_c(generated) − share_c(real)|, and the number of classes with >= a tenth of their real share.

    Args:
        real, generated: classes `[n]` and `[m]` in 0 … classes − 1; a class without real points is not counted. −1 is
            the class of a point that is not finite: with one, both values are NaN.

    Raises:
        ValueError: no points on either side.
    """
    if not (len(real) and len(generated)):
        raise ValueError(f"class shares need at least 1 point on either side, got {len(real)} and {len(generated)}")
    if min(int(real.min()), int(generated.min())) < 0:
        return ClassShares(math.nan, math.nan)
    p, q = (torch.bincount(z.cpu(), minlength=classes).double() / len(z) for z in (real, generated))
    covered = (p > 0) & (q >= SHARE * p)
    return ClassShares(float((p - q).abs().sum() / 2), float(covered.sum()))


@final
class VarietyJudge:
    """Precision, recall, density, coverage and, where points have classes, their shares, against fixed real points.

    Args:
        real: features or states `[n, d]`.
        classify: points `[m, d]` -> classes `[m]` in 0 … classes − 1; real points are classified by it, too, so that
            its mistakes cancel.
    """

    def __init__(self, real: Tensor, classify: Callable[[Tensor], Tensor] | None = None, classes: int = 0) -> None:
        self._real, self._classify, self._classes = real, classify, classes

    def __call__(self, generated: Tensor) -> dict[str, float]:
        """Values of points `[m, d]` by the metrics' names; NaN, all of them, where a point is not finite."""
        values = {
            **precision_recall(self._real, generated)._asdict(),
            **density_coverage(self._real, generated)._asdict(),
        }
        if self._classify is not None:
            # whatever a classifier of the user's makes of NaN
            real, found = (_classes(self._classify, x) for x in (self._real, generated))
            shares = class_shares(real, found, self._classes)
            values |= {"class_histogram_distance": shares.distance, "classes_covered": shares.covered}
        return values


def component(mixture: GaussianMixture, x: State) -> Tensor:
    """The most responsible component of each row, `[n]`; for equal isotropic components, the nearest centre.

    −1 for a row that is not finite.
    """
    return _classes(lambda rows: mixture.log_components(rows).argmax(1), x)


def checkerboard_square(x: State) -> Tensor:
    """Which of the checkerboard's 8 squares of [−4, 4]^2 each row lies in, `[n]`; 8 outside of all, −1 not finite."""
    column, row = ((x.double().nan_to_num().clamp(-9, 9) + 4) / 2).floor().long().unbind(1)
    board = (column.clamp(0, 3) == column) & (row.clamp(0, 3) == row) & ((column + row) % 2 == 0)
    return torch.where(finite_rows(x), torch.where(board, 2 * column + row // 2, 8), -1)


def _classes(classify: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Classes of the rows, −1 where one is not finite."""
    finite = finite_rows(x)
    found = classify(torch.where(finite.reshape(-1, *[1] * (x.dim() - 1)), x, 0.0))
    return torch.where(finite.to(found.device), found, -1)


def _radii(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th nearest other point, `[n]`."""
    if len(points) <= k:
        raise ValueError(f"neighbourhoods of {k} points need more than {k} points, got {len(points)}")
    # the nearest of a point's neighbours is itself; rounding must not put the k-th outside
    nearest = [distance.topk(k + 1, dim=1, largest=False).values for distance, _ in _distances(points, points)]
    return torch.cat(nearest)[:, -1] * _SLACK


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Distances `[rows, len(y)]` of some rows of x at a time, and which rows."""
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        yield torch.cdist(x[rows].double(), y.double()), rows
