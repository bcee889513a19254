"""Which parameter mattered in the search: PED-ANOVA and fANOVA of its trainings, with bootstrap intervals.

A conditional parameter is compared among the runs that have it, and with the parameters that all of these have.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.results import Results
from analysis.statistics import BOOTSTRAP_MINIMUM, Interval
from analysis.tables import Column, Table
from analysis.tables_runs import search_score, searched_at

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
    """One parameter's share of the importances that an evaluator gives; without limits under 20 runs.

    Attributes:
        evaluator: its name.
        path: the parameter's.
        share: among the parameters that all runs have in which it is active; its n is the number of these runs.
        runs: how many runs there are in all.
    """

    evaluator: str
    path: str
    share: Interval
    runs: int


def searched(results: Results, budget: int | None = None) -> list[Searched]:
    """The completed trainings of the search with their scores on validation, logarithmic where all are positive."""
    found = []
    for run in results.runs["search"]:
        score = search_score(results, run, budget)
        if math.isfinite(score):
            found.append(Searched(results.proposed(run), score))
    if found and min(item.score for item in found) > 0:
        return [Searched(item.parameters, math.log(item.score)) for item in found]
    return found


def importances(runs: Sequence[Searched], seed: int = 0, largest: int = LARGEST) -> list[Importance]:
    """Both evaluators' importances of every parameter that varies, the largest first; nothing below 4 runs.

    Of more runs than `largest` so many are taken at random.
    """
    if len(runs) < MINIMUM:
        return []
    generator = np.random.default_rng(seed)
    if len(runs) > largest:
        runs = [runs[i] for i in sorted(generator.choice(len(runs), size=largest, replace=False))]
    groups = _groups(runs)
    return [
        Importance(evaluator, path, share, len(runs))
        for evaluator in _RESAMPLES for own, paths in groups
        for path, share in _intervals(own, paths, evaluator, generator).items()
    ]  # fmt: skip


def _groups(runs: Sequence[Searched]) -> list[tuple[list[Searched], list[str]]]:
    """The parameters that are active in the same runs, with these runs; those that all have first."""
    active: dict[str, tuple[int, ...]] = {}
    for path in dict.fromkeys(path for run in runs for path in run.parameters):
        active[path] = tuple(i for i, run in enumerate(runs) if path in run.parameters)
    subsets = sorted(dict.fromkeys(active.values()), key=len, reverse=True)
    return [
        ([runs[i] for i in subset], [path for path, own in active.items() if own == subset])
        for subset in subsets if len(subset) >= MINIMUM
    ]  # fmt: skip


def _intervals(runs: Sequence[Searched], paths: Sequence[str], evaluator: str,
               generator: np.random.Generator) -> dict[str, Interval]:  # fmt: skip
    """These parameters' shares, the largest first, among all that every one of the runs has."""
    common = {path for path in runs[0].parameters if all(path in run.parameters for run in runs)}
    runs = [Searched({path: run.parameters[path] for path in common}, run.score) for run in runs]
    whole = _shares(runs, evaluator, _TREES)
    resamples = _RESAMPLES[evaluator] if whole and len(runs) >= BOOTSTRAP_MINIMUM else 0
    drawn = [
        _shares([runs[i] for i in generator.integers(len(runs), size=len(runs))], evaluator, _RESAMPLED_TREES)
        for _ in range(resamples)
    ]
    found = {}
    for path, share in sorted(whole.items(), key=lambda item: -item[1]):
        values = [one.get(path, 0.0) for one in drawn if one]
        low, high = np.quantile(values, [0.025, 0.975]) if values else (math.nan, math.nan)
        if path in paths:
            found[path] = Interval(len(runs), share, float(low), float(high), "bootstrap")
    return found


def importances_table(results: Results, budget: int | None = None, largest: int = LARGEST) -> Table:
    """A row a parameter and evaluator, with what the evaluator measures."""
    runs = searched(results, budget)
    count = min(len(runs), largest)
    columns = [
        Column("parameter", "parameter"), Column("evaluator", "evaluator"),
        Column("share", "share of importance", "limits"), Column("n", "n (runs)", "count"), Column("active", "active"),
        Column("meaning", "what it means"),
    ]  # fmt: skip
    drawn = f" drawn from {len(runs)}" if count < len(runs) else ""
    caption = (
        f"{results.metric.label} on validation {searched_at(results, budget)} of the search's completed "
        f"trainings (one seed, n = {count}{drawn}), as importances that sum to 1 over the "
        f"parameters that all of these runs have; a parameter that is active in some of them alone is compared within "
        f"these, with all that every one of them has. PED-ANOVA asks what sets the best runs apart; fANOVA what "
        f"explains the variance over the whole space: a sampler that has settled on a value of a parameter makes it "
        f"look unimportant to fANOVA. In brackets the 2.5 % and 97.5 % quantiles over bootstrap resamples of the runs, "
        f"from n ≥ {BOOTSTRAP_MINIMUM}. They say where the search looked and what it met there, not what a parameter "
        f"does: that stands in the table of effects."
    )
    table = Table("importances", "Importance of parameters in the search", caption, columns)
    for item in importances(runs, largest=largest):
        table.add({
            "parameter": results.parameters[item.path].label, "evaluator": item.evaluator, "share": item.share,
            "n": item.share.n, "active": f"active in {item.share.n} of {item.runs} runs",
            "meaning": _meaning(item.evaluator, item.share.n),
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
    """Importances by path of runs that have the same parameters."""
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
