"""Optuna through Ray Tune, with the holes closed that would leave a study inconsistent."""

import math
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

OBJECTIVES = ("log_validation_quality", "nfe")


class StudySearch(OptunaSearch):
    """OptunaSearch that enqueues points once, fails what it cannot judge, and leaves no trial RUNNING for ever.

    A NaN would leave a trial RUNNING; a killed driver leaves its trials RUNNING; both are told FAIL. One live driver a
    study: it fails every RUNNING trial that it does not own.
    """

    _ot_study: Any

    def _setup_study(self, mode: str | list[str]) -> None:
        points, self._points_to_evaluate = self._points_to_evaluate, []
        super()._setup_study(mode)
        for point in points or []:
            self._ot_study.enqueue_trial(point, skip_if_exists=True)
        self._fail_orphans()

    def _fail_orphans(self) -> None:
        known = {trial.number for trial in self._ot_trials.values()}
        for trial in self._ot_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if trial.number not in known:
                self._ot_study.tell(trial.number, state=TrialState.FAIL)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells Optuna; a result that is missing or not finite is a failure."""
        values = [(result or {}).get(metric) for metric in OBJECTIVES]
        if not error and result and not all(value is not None and math.isfinite(value) for value in values):
            if trial_id not in self._completed_trials:
                self._ot_study.tell(self._ot_trials[trial_id], state=TrialState.FAIL)
                self._completed_trials.add(trial_id)
            return
        super().on_trial_complete(trial_id, result=result, error=error)


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
