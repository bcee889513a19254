"""The search's Optuna study: opening it, what it has, whether it stalls. Loads no Ray."""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from sbbridge.study.database import in_one_line, open_database
from sbbridge.study.outcome import reported
from sbbridge.study.space import Space
from sbbridge.study.store import Store


def open_study(url: str, name: str, objectives: Sequence[str]) -> optuna.Study:
    """The Optuna study, made if it is not there; every objective is minimised.

    Raises:
        DatabaseError: the database cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = open_database(url)
    with in_one_line(url):
        return optuna.create_study(
            storage=storage, study_name=name, directions=["minimize"] * len(objectives), load_if_exists=True
        )


def put_back(study: optuna.Study, store: Store, space: Space, metric: str, objectives: Sequence[str]) -> str | None:
    """Gives a study whose database was lost its trials again, from the records, under their numbers; says so."""
    if study.get_trials(deepcopy=False):
        return None
    rows = {
        number: row for row in sorted(store.trial_rows(), key=lambda row: row["attempt"])
        if row["phase"] == "search" and row["optuna_choices"] for number in row["optuna_numbers"]
    }  # fmt: skip
    for number in range(max(rows, default=-1) + 1):
        study.add_trial(_recorded(rows.get(number), store, space, metric, objectives))
    return f"the search's {len(rows)} trials are put back from the records" if rows else None


def _recorded(row: Mapping[str, Any] | None, store: Store, space: Space, metric: str,
              objectives: Sequence[str]) -> FrozenTrial:  # fmt: skip
    if row is None:  # its driver was killed before it ended
        return create_trial(state=TrialState.FAIL)
    choices = json.loads(row["optuna_choices"])
    distributions: dict[str, BaseDistribution] = {
        factor.path: CategoricalDistribution(factor.values) for factor in space.factors if factor.path in choices
    }
    state, values = TrialState.PRUNED if row["status"] == "pruned" else TrialState.FAIL, None
    if row["status"] == "completed":
        found = store.finished(row["training_digest"], row["digest"], row["seed"]) or {}
        told, _ = reported(found, metric, space.judged_at(choices), choices.get("sampler"))
        if all(math.isfinite(told[name]) for name in objectives):
            state, values = TrialState.COMPLETE, [told[name] for name in objectives]
    return create_trial(state=state, values=values, params=choices, distributions=distributions)


def sampler(algorithm: str, seed: int) -> BaseSampler:
    """Optuna's sampler by the name that the command line knows it by.

    On the joint space none could be told from the default at 40 trials (`benchmarks/search_quality.py`). nsga2 draws at
    random until its first 50 trials are done; qmc orders the parameters that every trial has, and draws the others.
    """
    if algorithm == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            # grouped: parameters that are there together are modelled together, conditional ones where they are
            return TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
    if algorithm == "qmc":
        return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
    if algorithm == "gp":
        return GPSampler(seed=seed, warn_independent_sampling=False)
    return {"nsga2": NSGAIISampler, "random": RandomSampler}[algorithm](seed=seed)


def completed(study: optuna.Study) -> int:
    """How many of its trials have both objectives, or were stopped early because others were better."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def stalled(study: optuna.Study, patience: int | None) -> bool:
    """True when the last `patience` completed trials have left the Pareto front as it was."""
    if patience is None:
        return False
    finished = sorted(
        study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)), key=lambda trial: trial.datetime_complete or 0
    )
    front = {trial.number for trial in study.best_trials}
    last = max((index for index, trial in enumerate(finished) if trial.number in front), default=-1)
    return len(finished) - 1 - last >= patience
