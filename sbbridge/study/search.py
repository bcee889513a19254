"""The search's Optuna study: opening it, what it has, what a training's objectives are. Loads no Ray."""

import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

OBJECTIVES = ("log_validation_quality", "nfe")


def open_study(url: str, name: str) -> optuna.Study:
    """The Optuna study, made if it is not there."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(storage=url, study_name=name, directions=["minimize", "minimize"], load_if_exists=True)


def completed(study: optuna.Study) -> int:
    """How many of its trials have both objectives."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def objectives(fields: Mapping[str, Any], metric: str, nfe: int, sampler: str | None) -> tuple[float, float, str]:
    """(log of the best validation quality at no more than `nfe` calls, its counted calls, its sampler).

    One training is evaluated at every NFE and sampler; the trial's own choice picks the entry. A sampler that the
    method cannot run stands for any; one that needs more calls is taken at its least. (nan, nan, "") if there is none.
    """
    entries = [e for e in fields.get("entries", ()) if e["metric"] == metric and e["value"] > 0]
    mine = [e for e in entries if sampler is None or e["sampler"] == sampler] or entries
    within = [e for e in mine if e["nfe"] <= nfe]
    if not within and mine:  # two calls are the least that Heun can do
        least = min(e["nfe"] for e in mine)
        within = [e for e in mine if e["nfe"] == least]
    if not within:
        return math.nan, math.nan, ""
    best = min(within, key=lambda entry: entry["value"])
    return math.log(best["value"]), float(best["nfe"]), best["sampler"]


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
