"""Main effects and interactions of a designed experiment: least squares with seeds as blocks, for one study or many.

Levels are coded to sum to zero, so a level's effect is its distance from the unweighted mean over all levels, whatever
the number of runs in each. One residual variance is shared by all cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy import special

from analysis.statistics import CONFIDENCE

Term = tuple[int, ...]


@dataclass(frozen=True)
class Effects:
    """The effects of one term, `[levels, …]` for one study or `[levels, studies]` for many; NaN where df = 0.

    Attributes:
        levels: which level of each of the term's factors a row is.
        estimate: distance from the mean over levels; of an interaction, from what the main effects add up to.
        low: lower confidence limit.
        high: upper confidence limit.
        p_values: two-sided t tests of single effects.
        f_p_value: F test of the whole term.
        share: of the variation within seeds, the part that the term explains.
    """

    levels: list[tuple[int, ...]]
    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_values: np.ndarray
    f_p_value: np.ndarray
    share: np.ndarray


class LinearModel:
    """y = mean + terms + seed + error.

    Args:
        codes: level of each factor in each run, `[runs, factors]`.
        levels: number of levels of each factor.
        terms: which factors each term crosses: (0,), (1,), (0, 1).
        blocks: the seed of each run, `[runs]`.

    Raises:
        ValueError: the runs do not determine every effect (a cell without a run).
    """

    def __init__(self, codes: np.ndarray, levels: Sequence[int], terms: Sequence[Term], blocks: np.ndarray) -> None:
        self._codings = [_sum_to_zero(count) for count in levels]
        seeds, block = np.unique(blocks, return_inverse=True)
        columns = [np.ones((len(codes), 1)), _sum_to_zero(len(seeds))[block]]
        self._places: dict[Term, slice] = {}
        width = columns[1].shape[1] + 1
        for term in terms:
            part = _cross([self._codings[factor][codes[:, factor]] for factor in term])
            self._places[term] = slice(width, width + part.shape[1])
            width += part.shape[1]
            columns.append(part)
        self._design = np.concatenate(columns, axis=1)
        if np.linalg.matrix_rank(self._design) < width:
            raise ValueError("the runs do not determine every effect: a combination of levels has no run")
        self._inverse = np.linalg.inv(self._design.T @ self._design)
        self._nuisance = self._design[:, : 1 + len(seeds) - 1]
        self.degrees = len(codes) - width

    def fit(self, y: np.ndarray) -> "Fit":
        """Fits one study, `[runs]`, or many of one design, `[runs, studies]`."""
        beta = self._inverse @ (self._design.T @ y)
        squares = ((y - self._design @ beta) ** 2).sum(axis=0)
        variance = squares / self.degrees if self.degrees else np.full_like(squares, np.nan)
        within = y - self._nuisance @ np.linalg.lstsq(self._nuisance, y, rcond=None)[0]
        return Fit(self, beta, variance, (within**2).sum(axis=0))

    def rows(self, term: Term) -> tuple[list[tuple[int, ...]], np.ndarray]:
        """Every combination of the term's levels, and what its effect is of the term's coefficients."""
        counts = [len(self._codings[factor]) for factor in term]
        levels = [tuple(int(index) for index in place) for place in np.ndindex(*counts)]
        parts = [self._codings[factor][[level[k] for level in levels]] for k, factor in enumerate(term)]
        return levels, _cross(parts)

    def place(self, term: Term) -> slice:
        """Where the term's coefficients are."""
        return self._places[term]

    def covariance(self, term: Term) -> np.ndarray:
        """Of the term's coefficients, for errors of variance 1."""
        covariance: np.ndarray = self._inverse[self._places[term], self._places[term]]
        return covariance


@dataclass(frozen=True)
class Fit:
    """A fitted model: coefficients `[k, …]`, residual variance `[…]`, squares within seeds `[…]`."""

    model: LinearModel
    coefficients: np.ndarray
    variance: np.ndarray
    total: np.ndarray

    def effects(self, term: Term, confidence: float = CONFIDENCE) -> Effects:
        """The effects of one term, with t intervals."""
        levels, rows = self.model.rows(term)
        beta, covariance = self.coefficients[self.model.place(term)], self.model.covariance(term)
        degrees = self.model.degrees
        estimate = rows @ beta
        scale = np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))
        error = scale.reshape(-1, *[1] * (estimate.ndim - 1)) * np.sqrt(self.variance)
        half = special.stdtrit(degrees, 0.5 + confidence / 2) * error if degrees else np.full_like(estimate, np.nan)
        squares = np.einsum("i...,ij,j...->...", beta, np.linalg.inv(covariance), beta)
        with np.errstate(divide="ignore", invalid="ignore"):
            p_values = 2 * special.stdtr(degrees, -np.abs(estimate / error)) if degrees else half
            ratio = squares / len(beta) / self.variance
            f_p_value = special.fdtrc(len(beta), degrees, ratio) if degrees else ratio * np.nan
            share = squares / self.total
        return Effects(levels, estimate, estimate - half, estimate + half, p_values, f_p_value, share)


def _sum_to_zero(count: int) -> np.ndarray:
    """Coding of `count` levels in count − 1 columns that sum to zero; orthogonal, so that none is the reference."""
    centred = np.eye(count) - 1 / count
    vectors = np.linalg.svd(centred)[0]
    coding: np.ndarray = vectors[:, : count - 1]
    return coding


def _cross(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Products of every column of one factor with every column of the next."""
    return reduce(lambda left, right: (left[:, :, None] * right[:, None, :]).reshape(len(left), -1), parts)
