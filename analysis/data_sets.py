"""A study of several data sets as one `Results` for each of them."""

from dataclasses import replace

import pandas as pd

from analysis.collect import Collected
from analysis.results import Results, build_results
from sbbridge.records import TRIAL_KEY

_PER_DATA_SET = ("primary_metric", "base", "centre", "design")


def build_all(collected: Collected) -> list[Results]:
    """One `Results` for each data set of a study, in its order; a study of one data set has one."""
    return [build_results(part) for part in split(collected)]


def split(collected: Collected) -> list[Collected]:
    """The records of each data set, with the entries of study.json that are its own; problems are shared by all."""
    problems = collected.study.get("problems") or {}
    if not problems:
        return [collected]
    parts = []
    for dataset, problem in problems.items():
        own = {name: problem.get(name) for name in _PER_DATA_SET}
        trials = collected.trials[collected.trials["dataset"] == dataset]
        study = {**collected.study, **own, "dataset": dataset}
        parts.append(replace(collected, study=study, trials=trials, metrics=_metrics_of(trials, collected.metrics)))
    return parts


def _metrics_of(trials: pd.DataFrame, metrics: pd.DataFrame) -> pd.DataFrame:
    key = list(TRIAL_KEY)
    return metrics[pd.MultiIndex.from_frame(metrics[key]).isin(pd.MultiIndex.from_frame(trials[key]))]
