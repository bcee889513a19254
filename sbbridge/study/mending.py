"""What torn parts of the records held, had again: rows from what trainings came to, numbers from their checkpoints."""

import json
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

import optuna
from optuna.trial import TrialState

from sbbridge.study.job import Job, trial_row
from sbbridge.study.store import Store


def mend(store: Store, job: Callable[[dict[str, Any], int, str], Job], measure: Callable[[list[Job]], None],
         say: Callable[[str], None]) -> None:  # fmt: skip
    """Names every torn part, has the trials measured again whose numbers were in one, and sets the part aside.

    Args:
        store: of the study.
        job: makes one of a configuration's tree, a seed and a phase.
        measure: runs jobs; trained as they are, they are evaluated.
        say: is told a line for each part.
    """
    torn = store.torn_parts()
    for path in torn:
        say(f"{path} is torn: what it held is looked up, or measured again from the last checkpoint")
    lost = {_trial_of(path) for path in torn if PurePosixPath(path).parent.name == "metrics"}
    rows = [row for row in store.trials() if row["status"] == "completed" and (row["digest"], row["seed"]) in lost]
    for row in rows:
        store.forget(row["training_digest"], row["digest"], row["seed"])
    if rows:
        measure([job(json.loads(row["config_json"]), row["seed"], row["phase"]) for row in rows])
    for path in torn:  # not before: a driver that is killed here begins again
        store.set_aside(path)


def record_search_again(study: optuna.Study, store: Store, job: Callable[[Mapping[str, Any]], Job]) -> None:
    """Writes the rows that the records lack of trials that the search has completed.

    Args:
        study: Optuna's.
        store: of the study.
        job: makes one of Optuna's choices.
    """
    held = {number for row in store.trial_rows() for number in row["optuna_numbers"] or []}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        if trial.number not in held:
            mine = job(trial.params)
            found = store.finished(mine.training_digest, mine.digest, mine.seed)
            if found is not None:
                store.add_trial(trial_row(mine, {**found, "status": "completed"}, [trial.number], trial.params))


def _trial_of(path: str) -> tuple[str, int]:
    """(digest, seed) in a part's name."""
    _, digest, seed, *_ = PurePosixPath(path).stem.split("-")
    return digest, int(seed)
