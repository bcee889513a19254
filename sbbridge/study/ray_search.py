"""What Tune asks for trials: Optuna, with the holes closed that would leave a study inconsistent, or a list."""

import math
from collections.abc import Sequence
from typing import Any

from optuna.trial import TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from sbbridge.study.outcome import QUALITY


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
        """Tells Optuna; one that was stopped on its way is pruned, a result that is not finite is a failure."""
        values = [(result or {}).get(metric) for metric in self.metric]
        if not error and result and not all(value is not None and math.isfinite(value) for value in values):
            if trial_id not in self._completed_trials:
                stopped = "quality" in result and QUALITY not in result
                state = TrialState.PRUNED if stopped else TrialState.FAIL
                self._ot_study.tell(self._ot_trials[trial_id], state=state)
                self._completed_trials.add(trial_id)
            return
        super().on_trial_complete(trial_id, result=result, error=error)


class InOrder(Searcher):
    """Suggests configurations one after the other; as a grid Tune would copy all of them for each of them."""

    def __init__(self, configs: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self._left = list(reversed(configs))

    def suggest(self, trial_id: str) -> Any:
        """The next one, and after the last that there are no more."""
        return self._left.pop() if self._left else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing is learnt."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: what is left follows from the records."""
