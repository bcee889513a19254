"""Intervals over seeds, paired differences against a baseline, and the correction for comparing several.

Everything here takes the numbers of one phase and one split; the callers choose them (`analysis.quality`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import special

CONFIDENCE = 0.95
BOOTSTRAP_MINIMUM = 20  # below this a percentile bootstrap is far too narrow


@dataclass(frozen=True)
class Interval:
    """A mean over n values with its confidence limits; the limits are NaN where n is too small for them.

    Attributes:
        method: "t", "log t" (of logarithms: mean and limits are factors), "Welch", "bootstrap", "standard deviation".
        by_seed: {seed: value} that it is made of, where these are known.
    """

    n: int
    mean: float
    low: float
    high: float
    method: str = "t"
    by_seed: Mapping[int, float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def half_width(self) -> float:
        """Half the length of the interval, NaN without one."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class PairedDifference:
    """A setting against its baseline, over the seeds that both have or, without such, over all of both (Welch).

    Attributes:
        n: seeds in common; of Welch's test, the fewer of the two.
        difference: interval of value − baseline.
        ratio: interval of value / baseline (exponential of the mean log ratio), None where a value is not positive.
        p_value: two-sided t test, on the log ratios where they exist; NaN where it cannot be computed.
        method: "paired" or "Welch".
    """

    n: int
    difference: Interval
    ratio: Interval | None
    p_value: float
    method: str = "paired"


def mean_interval(values: Sequence[float] | Mapping[int, float], confidence: float = CONFIDENCE) -> Interval:
    """Mean and Student t interval of independent values, x̄ ± t_{n−1} s/√n.

    Args:
        values: one finite value a seed, or {seed: value}.
        confidence: probability that the interval covers the mean.
    """
    by_seed = dict(values) if isinstance(values, Mapping) else {}
    sample = np.asarray(list(by_seed.values()) if by_seed else list(values), dtype=float)
    n = len(sample)
    if n == 0:
        return Interval(0, math.nan, math.nan, math.nan)
    mean = float(sample.mean())
    if n == 1:
        return Interval(1, mean, math.nan, math.nan, by_seed=by_seed)
    half = float(special.stdtrit(n - 1, 0.5 + confidence / 2) * sample.std(ddof=1) / math.sqrt(n))
    return Interval(n, mean, mean - half, mean + half, by_seed=by_seed)


def bootstrap_interval(values: Sequence[float], confidence: float = CONFIDENCE, resamples: int = 10_000,
                       seed: int = 0) -> Interval:  # fmt: skip
    """Mean and percentile bootstrap interval, for skewed values.

    Raises:
        ValueError: fewer than 20 values, where this interval would be far too narrow.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < BOOTSTRAP_MINIMUM:
        raise ValueError(f"a bootstrap over {len(sample)} values; it needs at least {BOOTSTRAP_MINIMUM}")
    generator = np.random.default_rng(seed)
    means = sample[generator.integers(len(sample), size=(resamples, len(sample)))].mean(axis=1)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(len(sample), float(sample.mean()), float(low), float(high), "bootstrap")


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float],
                      confidence: float = CONFIDENCE) -> PairedDifference:  # fmt: skip
    """Compares by seed: what a seed has in common with the baseline's run (data order, start) cancels.

    Args:
        values: {seed: value}.
        baseline: {seed: value}; only the seeds of both are used.
        confidence: probability that an interval covers its mean.
    """
    seeds = sorted(set(values) & set(baseline))
    left = np.asarray([values[seed] for seed in seeds], dtype=float)
    right = np.asarray([baseline[seed] for seed in seeds], dtype=float)
    difference = mean_interval(dict(zip(seeds, (left - right).tolist(), strict=True)), confidence)
    if not seeds or min(left.min(), right.min()) <= 0:
        return PairedDifference(len(seeds), difference, None, _t_test(left - right))
    logs = np.log(left) - np.log(right)
    log_ratio = mean_interval(logs.tolist(), confidence)
    limits = (math.exp(log_ratio.low), math.exp(log_ratio.high))
    by_seed = dict(zip(seeds, np.exp(logs).tolist(), strict=True))
    ratio = Interval(len(seeds), math.exp(log_ratio.mean), *limits, "log t", by_seed)
    return PairedDifference(len(seeds), difference, ratio, _t_test(logs))


def compare_seeds(values: Mapping[int, float], baseline: Mapping[int, float],
                  confidence: float = CONFIDENCE) -> PairedDifference:  # fmt: skip
    """Paired by seed where two seeds or more are shared, Welch's unequal variances otherwise.

    Args:
        values: {seed: value}.
        baseline: {seed: value}.
        confidence: probability that an interval covers its mean.
    """
    if len(set(values) & set(baseline)) > 1:
        return paired_difference(values, baseline, confidence)
    left, right = (np.asarray(list(side.values()), dtype=float) for side in (values, baseline))
    n = min(len(left), len(right))
    if not n:
        return PairedDifference(0, mean_interval([]), None, math.nan, "Welch")
    difference, p_value = _welch(left, right, confidence)
    if min(left.min(), right.min()) <= 0:
        return PairedDifference(n, difference, None, p_value, "Welch")
    logs, p_value = _welch(np.log(left), np.log(right), confidence)
    ratio = Interval(n, math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), "Welch")
    return PairedDifference(n, difference, ratio, p_value, "Welch")


def reduction(values: Mapping[int, float], baseline: Mapping[int, float],
              confidence: float = CONFIDENCE) -> Interval:  # fmt: skip
    """How much lower than the baseline, in per cent: 100 (1 − value / baseline), paired by seed as the ratio is.

    n = 0 where no seed is shared or a value is not positive; the interval is that of the mean log ratio, and so is not
    symmetric.
    """
    ratio = paired_difference(values, baseline, confidence).ratio
    if ratio is None:
        return mean_interval([])
    return Interval(ratio.n, 100 * (1 - ratio.mean), 100 * (1 - ratio.high), 100 * (1 - ratio.low))


def deviation(values: Sequence[float] | Mapping[int, float]) -> Interval:
    """Mean ± one standard deviation of the values: how much single runs differ, not how well the mean is known."""
    by_seed = dict(values) if isinstance(values, Mapping) else {}
    sample = np.asarray(list(by_seed.values()) if by_seed else list(values), dtype=float)
    if len(sample) < 2:
        return mean_interval(values)
    mean, spread = float(sample.mean()), float(sample.std(ddof=1))
    return Interval(len(sample), mean, mean - spread, mean + spread, "standard deviation", by_seed=by_seed)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: reject where the result is below α, and the family-wise error is at most α.

    NaN (a comparison that could not be made) stays NaN and does not count towards the family.
    """
    adjusted = [math.nan] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _welch(left: np.ndarray, right: np.ndarray, confidence: float) -> tuple[Interval, float]:
    """Interval of the difference of means and its p value; without limits where a side has one value."""
    n, mean = min(len(left), len(right)), float(left.mean() - right.mean())
    if n < 2:
        return Interval(n, mean, math.nan, math.nan, "Welch"), math.nan
    parts = np.array([left.var(ddof=1) / len(left), right.var(ddof=1) / len(right)])
    error = math.sqrt(parts.sum())
    if error <= 1e-12 * abs(mean) or error == 0:
        return Interval(n, mean, math.nan, math.nan, "Welch"), 1.0 if mean == 0 else math.nan
    degrees = float(parts.sum() ** 2 / (parts**2 / np.array([len(left) - 1, len(right) - 1])).sum())
    half = float(special.stdtrit(degrees, 0.5 + confidence / 2)) * error
    p_value = float(2 * special.stdtr(degrees, -abs(mean) / error))
    return Interval(n, mean, mean - half, mean + half, "Welch"), p_value


def _t_test(differences: np.ndarray) -> float:
    n = len(differences)
    if n < 2:
        return math.nan
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if deviation <= 1e-12 * abs(mean):
        # Differences equal to the last digit are not independent draws (one run counted twice): no test is possible.
        return 1.0 if mean == 0 else math.nan
    return float(2 * special.stdtr(n - 1, -abs(mean) / (deviation / math.sqrt(n))))
