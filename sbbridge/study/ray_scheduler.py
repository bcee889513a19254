"""Early stopping: ASHA among trials that may be compared."""

from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler


class LikeWithLike(FIFOScheduler):
    """An ASHA for fields, and one for the fits of each kind with each number of steps.

    A field is judged at a fixed NFE against counted network evaluations. A path has one number of steps, so its
    quality can be held against that of paths with as many alone; what such fits cost is the same at each point of
    their curves.

    Args:
        evaluations: network evaluations that a field's training takes.
    """

    def __init__(self, evaluations: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._evaluations = evaluations
        self._groups: dict[tuple[Any, ...], ASHAScheduler] = {}

    def set_search_properties(self, metric: Any, mode: Any, **spec: Any) -> bool:
        """What trials are judged by on their way is its own."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Into its group."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Goes on, or stops."""
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Its last point counts for those that come."""
        if "quality" in result:
            self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Out of its group."""
        self._of(trial).on_trial_remove(tune_controller, trial)

    def _of(self, trial: Any) -> ASHAScheduler:
        method = trial.config["trial"]["jobs"][0]["tree"]["method"]
        fit = method.get("fit") or {}
        group = (fit.get("kind"), method.get("num_steps")) if method["kind"] == "ldsb" else ()
        if group not in self._groups:
            # its largest time would end a training that has only its evaluation left
            field = {"time_attr": "evaluations", "grace_period": max(1, self._evaluations // 4),
                     "max_t": 64 * self._evaluations}  # fmt: skip
            path = {"time_attr": "training_iteration", "grace_period": 1, "max_t": 10**6}
            options: dict[str, Any] = path if group else field
            self._groups[group] = ASHAScheduler(metric="quality", mode="min", reduction_factor=2, **options)
        return self._groups[group]
