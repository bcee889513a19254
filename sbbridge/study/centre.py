"""Where the ablation stands: the search's winner or the preset itself, with what else the search has found."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from sbbridge.study.design import Centre
from sbbridge.study.outcome import objectives, training_cost
from sbbridge.study.plan import Plan
from sbbridge.study.store import Store

OF_PATH = ("method.kind", "method.fit.", "method.grid", "method.boundary", "network.")
"""Where the levels of a path of its own lie, but for its number of steps."""


class Searched(NamedTuple):
    """A completed trial of the search: its row, its levels, and its quality with the calls that this took."""

    row: dict[str, Any]
    choices: dict[str, Any]
    quality: float
    nfe: float


def find_centre(plan: Plan, dataset: str, store: Store, metric: str) -> Centre | None:
    """The centre of a data set's ablation; None where a search is to choose it and has completed no trial."""
    preset, nfe = plan.preset, plan.preset.centre_nfe
    own = replace(
        plan.centre(dataset), best_path=_best_path(store, metric, nfe),
        finalists=tuple((n, best.choices) for n in preset.finalists if (best := best_trial(store, metric, n))),
    )  # fmt: skip
    if preset.centre == "preset":
        return own
    best = best_trial(store, metric, nfe) or best_trial(store, metric, nfe, within=False)
    if best is None:
        return None
    levels = {path: level for path, level in best.choices.items() if path not in ("nfe", "sampler")}
    spent = int(training_cost(best.row))
    return replace(own, tree=json.loads(best.row["config_json"]), point=levels, evaluations=spent)


def best_trial(store: Store, metric: str, nfe: int, wanted: Callable[[dict[str, Any]], bool] | None = None,
               within: bool = True) -> Searched | None:  # fmt: skip
    """The search's best on validation at so many calls.

    Args:
        store, metric: of the study.
        nfe: network calls a sample.
        wanted: of the trials' levels; None takes all.
        within: leaves out those that need more calls.
    """
    found: list[Searched] = []
    for row in store.trials():
        if row["phase"] != "search" or row["status"] != "completed" or not row["optuna_choices"]:
            continue
        choices = json.loads(row["optuna_choices"])
        fields = store.finished(row["training_digest"], row["digest"], row["seed"]) or {}
        quality, calls, _ = objectives(fields, metric, nfe, None)
        if math.isfinite(quality) and (calls <= nfe or not within) and (wanted is None or wanted(choices)):
            found.append(Searched(row, choices, quality, calls))
    return min(found, key=lambda trial: trial.quality, default=None)


def _best_path(store: Store, metric: str, nfe: int) -> dict[str, Any]:
    """The levels that make the path of the best trial that has one."""
    best = best_trial(store, metric, nfe, lambda choices: choices.get("method.kind") == "ldsb")
    return {path: level for path, level in best.choices.items() if path.startswith(OF_PATH)} if best else {}
