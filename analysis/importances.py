"""Which parameter mattered in the search: PED-ANOVA and fANOVA of its trainings, with bootstrap intervals."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.results import CHOICES, Results
from analysis.statistics import BOOTSTRAP_MINIMUM, Interval
from analysis.tables import Column, Table, budget_label
from analysis.tables_runs import search_score

MINIMUM = 4  # completed runs
_RESAMPLES = {"PED-ANOVA": 100, "fANOVA": 30}
_TREES, _RESAMPLED_TREES = 16, 8  # fewer make a resample's interval some 3 % wider, and half as dear
LARGEST = 200  # runs: a minute for forests of more
_BEST, _FEWEST = 0.1, 5  # PED-ANOVA looks at the best tenth, at five runs or more


@dataclass(frozen=True)
class Searched:
    """One training of the search: the parameters that it has, and its score (lower is better)."""

    parameters: Mapping[str, Any]
    score: float


@dataclass(frozen=True)
class Importance:
    """One parameter's share of the importances that an evaluator gives; without limits under 20 runs."""

    evaluator: str
    path: str
    share: Interval


def searched(results: Results, budget: int) -> list[Searched]:
    """The completed trainings of the search with their scores on validation, logarithmic where all are positive."""
    paths = [item["path"] for item in results.study.get("space") or [] if item["path"] not in CHOICES]
    found = []
    for run in results.runs["search"]:
        score = search_score(results, run, budget)
        if math.isfinite(score):
            leaves = results.leaves_of(run)
            held = {path: leaves[path] for path in paths if leaves.get(path) is not None}
            found.append(Searched(held, score))
    if found and min(item.score for item in found) > 0:
        return [Searched(item.parameters, math.log(item.score)) for item in found]
    return found


def importances(runs: Sequence[Searched], seed: int = 0, largest: int = LARGEST) -> list[Importance]:
    """Both evaluators' importances of every parameter that varies, the largest first; nothing below 4 runs.

    Of more runs than `largest` so many are taken at random.
    """
    if len(runs) < MINIMUM:
        return []
    found = []
    generator = np.random.default_rng(seed)
    if len(runs) > largest:
        runs = [runs[i] for i in sorted(generator.choice(len(runs), size=largest, replace=False))]
    for evaluator, resamples in _RESAMPLES.items():
        whole = _shares(runs, evaluator, _TREES)
        drawn = [
            _shares([runs[i] for i in generator.integers(len(runs), size=len(runs))], evaluator, _RESAMPLED_TREES)
            for _ in range(resamples if whole and len(runs) >= BOOTSTRAP_MINIMUM else 0)
        ]
        for path, share in sorted(whole.items(), key=lambda item: -item[1]):
            values = [one.get(path, 0.0) for one in drawn if one]
            low, high = np.quantile(values, [0.025, 0.975]) if values else (math.nan, math.nan)
            found.append(Importance(evaluator, path, Interval(len(runs), share, float(low), float(high), "bootstrap")))
    return found


def importances_table(results: Results, budget: int | None = None, largest: int = LARGEST) -> Table:
    """A row a parameter and evaluator, with what the evaluator measures."""
    budget = results.headline if budget is None else budget
    runs = searched(results, budget)
    count = min(len(runs), largest)
    columns = [
        Column("parameter", "parameter"), Column("evaluator", "evaluator"),
        Column("share", "share of importance", "limits"), Column("n", "n (runs)", "count"),
        Column("meaning", "what it means"),
    ]  # fmt: skip
    drawn = f" drawn from {len(runs)}" if count < len(runs) else ""
    caption = (
        f"{results.metric.label} on validation {budget_label(budget)} of the search's completed trainings (one seed, "
        f"n = {count}{drawn}), as importances that sum to 1. PED-ANOVA asks what sets the best runs apart; fANOVA what "
        f"explains the variance over the whole space: a sampler that has settled on a value of a parameter makes it "
        f"look unimportant to fANOVA. In brackets the 2.5 % and 97.5 % quantiles over bootstrap resamples of the runs, "
        f"from n ≥ {BOOTSTRAP_MINIMUM}. They say where the search looked and what it met there, not what a parameter "
        f"does: that stands in the table of effects."
    )
    table = Table("importances", "Importance of parameters in the search", caption, columns)
    labels = {item["path"]: item.get("label") or item["path"] for item in results.study.get("space") or []}
    for item in importances(runs, largest=largest):
        table.add({
            "parameter": labels.get(item.path, item.path), "evaluator": item.evaluator, "share": item.share,
            "n": count, "meaning": _meaning(item.evaluator, count),
        }, {"phase": "search", **results.place})  # fmt: skip
    return table


def _quantile(count: int) -> float:
    return min(0.5, max(_BEST, _FEWEST / count))


def _meaning(evaluator: str, count: int) -> str:
    if evaluator == "fANOVA":
        return "share of the variance over the space that this parameter alone explains, by a random forest"
    best = math.ceil(_quantile(count) * count)
    return f"how far the best {best} of the {count} runs differ in this parameter from all of them"


def _shares(runs: Sequence[Searched], evaluator: str, trees: int) -> dict[str, float]:
    """Importances by path; fANOVA knows only parameters that every run has."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    evaluators: dict[str, Any] = {
        "PED-ANOVA": lambda: optuna.importance.PedAnovaImportanceEvaluator(target_quantile=_quantile(len(runs))),
        "fANOVA": lambda: optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=0),
    }
    levels = _levels(runs)
    kinds: dict[str, Any] = {
        path: optuna.distributions.IntDistribution(0, len(known) - 1) if _ordered(known)
        else optuna.distributions.CategoricalDistribution(known)
        for path, known in levels.items()
    }  # fmt: skip
    study = optuna.create_study(direction="minimize")
    study.add_trials(
        optuna.trial.create_trial(
            params={
                path: known.index(run.parameters[path]) if _ordered(known) else run.parameters[path]
                for path, known in levels.items() if path in run.parameters
            },
            distributions={path: kind for path, kind in kinds.items() if path in run.parameters}, value=run.score,
        )
        for run in runs
    )  # fmt: skip
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(study, evaluator=evaluators[evaluator]())
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {path: float(share) for path, share in found.items() if math.isfinite(share)}


def _levels(runs: Sequence[Searched]) -> dict[str, list[Any]]:
    """{path: its levels in order} of the parameters that vary."""
    found: dict[str, set[Any]] = {}
    for run in runs:
        for path, value in run.parameters.items():
            found.setdefault(path, set()).add(value)
    return {
        path: sorted(levels) if _ordered(levels) else sorted(levels, key=str)
        for path, levels in found.items() if len(levels) > 1
    }  # fmt: skip


def _ordered(levels: Iterable[Any]) -> bool:
    """Whether levels are numbers; their ranks are what is compared, so that each level weighs the same."""
    return all(isinstance(level, int | float) and not isinstance(level, bool) for level in levels)
