"""The primary metric of each configuration at each NFE: its sampler chosen on validation, its value taken on test."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis import formats
from analysis.statistics import Interval, mean_interval

HEADLINE_NFE = 10  # where the studies compare quality, if they measured there
TRAINING = "training"  # the stage of measurements during training
_HIGHER = frozenset({"precision", "recall", "density", "coverage", "classes_covered"})
Sampler = tuple[str, str]  # (sampler, time grid)
# steps and counted calls of a measurement, and its value
_Measurement = tuple[int, int, float]
# {sampler: {split: {seed: for each budget the measurement that counts}}}
_AtBudgets = dict[Sampler, dict[str, dict[int, list[_Measurement | None]]]]


@dataclass(frozen=True)
class Metric:
    """Which metric is reported, with which features."""

    name: str
    features: str | None

    @property
    def label(self) -> str:
        """Its name in tables: "FD (digits-CNN)"."""
        name = formats.metric(self.name)
        return f"{name} ({self.features})" if self.features else name

    @property
    def short(self) -> str:
        """Its name in a column's head: "FD"."""
        return self.label.split(" (")[0]

    @property
    def higher_is_better(self) -> bool:
        """Whether its best value is the largest."""
        return self.name in _HIGHER


@dataclass(frozen=True)
class Score:
    """A configuration at an NFE budget.

    Attributes:
        sampler: sampler and time grid, chosen on validation among all that this configuration was evaluated with.
        counted: network calls a sample that were counted, at most the budget.
        num_steps: steps of the sampler.
        test: {seed: value} on the test split; only finite values.
        validation: {seed: value} on the validation split.
        not_finite: runs whose value on the test split is not finite.
        chosen_by: "validation", or "only one" and "first named" where no validation values exist.
    """

    sampler: Sampler
    counted: int
    num_steps: int
    test: Mapping[int, float]
    validation: Mapping[int, float]
    not_finite: int
    chosen_by: str

    @cached_property
    def interval(self) -> Interval:
        """Mean over seeds on the test split."""
        return mean_interval(self.test)

    @cached_property
    def validation_mean(self) -> float:
        """Mean over seeds on the validation split, infinite without one."""
        return float(np.mean(list(self.validation.values()))) if self.validation else math.inf


@dataclass
class Scores:
    """All scores of one phase and role, by (digest, NFE budget)."""

    budgets: tuple[int, ...]
    by_key: dict[tuple[str, int], Score] = field(default_factory=dict)

    def get(self, digest: str, budget: int) -> Score | None:
        """The score of a configuration at a budget, None where it was never evaluated within it."""
        return self.by_key.get((digest, budget))

    def digests(self) -> list[str]:
        """The configurations that have any score."""
        return list(dict.fromkeys(digest for digest, _ in self.by_key))


class PhaseScores(Mapping[str, Scores]):
    """{phase: its scores}, each read when it is first asked for."""

    def __init__(self, phases: Iterable[str], read: Callable[[str], Scores]) -> None:
        self._phases, self._read = tuple(phases), functools.cache(read)

    def __getitem__(self, phase: str) -> Scores:
        if phase not in self._phases:
            raise KeyError(phase)
        return self._read(phase)

    def __iter__(self) -> Iterator[str]:
        return iter(self._phases)

    def __len__(self) -> int:
        return len(self._phases)


def metric_rows(metrics: pd.DataFrame, metric: Metric, phase: str, role: str) -> pd.DataFrame:
    """The evaluation rows of a metric in one phase and one role, of averaged weights where a run has them."""
    chosen = metrics[(metrics["metric"] == metric.name) & (metrics["phase"] == phase) & (metrics["role"] == role)]
    # What was measured on the way is no score of the trained network.
    chosen = chosen[chosen["stage"].fillna("") != TRAINING]
    if metric.features:
        chosen = chosen[chosen["features"] == metric.features]
    if not (chosen["weights"] == "ema").any():
        return chosen
    return chosen[(chosen["weights"] == "ema") | chosen["weights"].isna()]


def read_scores(rows: pd.DataFrame, completed: set[tuple[str, int]], budgets: Sequence[int],
                preferred: Sequence[Sampler]) -> Scores:  # fmt: skip
    """Scores of every configuration at every budget.

    Args:
        rows: rows of one metric, phase and role (`metric_rows`).
        completed: (digest, seed) of the runs that count.
        budgets: numbers of network calls a sample.
        preferred: samplers in the order of the study, which decides where no validation values exist.
    """
    scores = Scores(tuple(budgets))
    sign = -1.0 if len(rows) and str(rows["metric"].iloc[0]) in _HIGHER else 1.0
    ascending = sorted(set(budgets))
    places = [(budget, ascending.index(budget)) for budget in budgets]
    for digest, at_budgets in _measurements(rows, completed, ascending).items():
        for budget, place in places:
            score = _score(at_budgets, place, preferred, sign)
            if score is not None:
                scores.by_key[digest, budget] = score
    return scores


def _measurements(rows: pd.DataFrame, completed: set[tuple[str, int]],
                  budgets: Sequence[int]) -> dict[str, _AtBudgets]:  # fmt: skip
    found: dict[str, _AtBudgets] = {}
    if not len(rows):
        return found
    # A metric without sampling (a control's error) costs no calls; one without a split is not a choice to be made.
    calls = rows["nfe"].fillna(0).astype(int)
    keys = [rows["digest"], rows["sampler"].fillna(""), rows["grid"].fillna(""), rows["split"].fillna("test"),
            rows["seed"]]  # fmt: skip
    group = rows.groupby(keys, sort=False, observed=True).ngroup().to_numpy()  # in the order of their first rows
    order = np.lexsort((calls, group))
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    first = [column.iloc[order[starts]].tolist() for column in keys]
    held = [column.iloc[order].tolist() for column in (rows["num_steps"].fillna(calls).astype(int), calls,
                                                       rows["value"].astype(float))]  # fmt: skip
    ends = [*starts[1:].tolist(), len(order)]
    for digest, sampler, grid, split, seed, start, end in zip(*first, starts.tolist(), ends, strict=True):
        if (digest, seed) in completed:
            place = found.setdefault(digest, {}).setdefault((sampler, grid), {}).setdefault(split, {})
            place[int(seed)] = _at_budgets(list(zip(*(column[start:end] for column in held), strict=True)), budgets)
    return found


def _score(at_budgets: _AtBudgets, place: int, preferred: Sequence[Sampler], sign: float) -> Score | None:
    at_budget = {
        sampler: {
            split: {seed: found for seed, held in seeds.items() if (found := held[place]) is not None}
            for split, seeds in splits.items()
        }
        for sampler, splits in at_budgets.items()
    }
    usable = [sampler for sampler, splits in at_budget.items() if splits.get("validation") or splits.get("test")]
    if not usable:
        return None
    validated = [sampler for sampler in usable if at_budget[sampler].get("validation")]
    if validated:
        chosen, by = min(validated, key=lambda sampler: _rank(at_budget[sampler]["validation"], sign)), "validation"
    else:
        order = {sampler: rank for rank, sampler in enumerate(preferred)}
        chosen = min(usable, key=lambda sampler: order.get(sampler, len(order)))
        by = "only one" if len(usable) == 1 else "first named"
    test, validation = at_budget[chosen].get("test", {}), at_budget[chosen].get("validation", {})
    steps, calls, _ = next(iter((test or validation).values()))
    finite = {seed: value for seed, (_, _, value) in sorted(test.items()) if math.isfinite(value)}
    checked = {seed: value for seed, (_, _, value) in sorted(validation.items()) if math.isfinite(value)}
    return Score(chosen, calls, steps, finite, checked, len(test) - len(finite), by)


def _at_budgets(items: list[_Measurement], budgets: Sequence[int]) -> list[_Measurement | None]:
    """For each budget the measurement with the most steps whose counted calls are at most it; both come ascending."""
    found: list[_Measurement | None] = []
    best, place = None, 0
    for budget in budgets:
        while place < len(items) and items[place][1] <= budget:
            if best is None or items[place][:2] > best[:2]:
                best = items[place]
            place += 1
        found.append(best)
    return found


def _rank(validation: dict[int, _Measurement], sign: float) -> tuple[int, float]:
    """Most seeds first, then the best mean: a sampler that failed on a seed must not win by leaving it out.

    Args:
        validation: by seed.
        sign: −1 where more is better; a value that is not finite is the worst either way.
    """
    values = [sign * value if math.isfinite(value) else math.inf for _, _, value in validation.values()]
    return (-len(values), math.fsum(values) / len(values))


def completed_runs(runs: Sequence[Mapping[str, Any]]) -> set[tuple[str, int]]:
    """(digest, seed) of the runs that count."""
    return {(run["digest"], int(run["seed"])) for run in runs if run["status"] == "completed"}


def budgets_of(study: Mapping[str, Any], rows: pd.DataFrame) -> tuple[int, ...]:
    """The NFE at which a metric is reported: those that the study names, else those that were counted."""
    named = ((study.get("base") or {}).get("evaluation") or {}).get("nfe")
    counted = sorted({int(nfe) for nfe in rows["nfe"].dropna()})
    # A metric that needs no sampling has one budget, of no calls.
    if not counted and len(rows):
        return (0,)
    return tuple(sorted({int(nfe) for nfe in named or counted})) or (HEADLINE_NFE,)


def floor_of(metrics: pd.DataFrame, metric: Metric) -> Interval:
    """Real against real on the test split; each phase repeats it, so that one phase is enough."""
    for phase in ("ablation", "search"):
        rows = metric_rows(metrics, metric, phase, "floor")
        rows = rows[(rows["split"] == "test") | rows["split"].isna()]
        # One value a seed: runs of one seed share their draw of real samples.
        values = [float(value) for value in rows.groupby("seed", dropna=False)["value"].mean() if math.isfinite(value)]
        if values:
            return mean_interval(values)
    return mean_interval([])
