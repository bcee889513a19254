"""How many trainings of a field a study has asked for, and how many it has done: paths and proposals share them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from sbbridge.study.design import denoiser_tree
from sbbridge.study.space import resolve


def trainings(type_: Any, rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """{phase: {"asked": …, "trained": …}} of completed runs; a training counts in the phase that came first.

    Args:
        type_: of the configuration.
        rows: of `trials`, every attempt's; each of the search's numbers asks.
    """
    asked: dict[str, set[Any]] = {}
    trained: dict[str, set[Any]] = {}
    known: set[Any] = set()
    for row in sorted(rows, key=lambda row: row["attempt"]):
        if row["status"] != "completed":
            continue
        phase, key = row["phase"], (_field(type_, row), row["seed"])
        asked.setdefault(phase, set()).update(row["optuna_numbers"] or [(row["digest"], row["seed"])])
        trained.setdefault(phase, set()).update({key} - known)
        known.add(key)
    return {phase: {"asked": len(asked[phase]), "trained": len(trained[phase])} for phase in asked}


def in_words(counted: Mapping[str, Mapping[str, int]]) -> str:
    """A sentence; nothing where none was shared."""
    asked, done = (sum(phase[name] for phase in counted.values()) for name in ("asked", "trained"))
    return f"{asked} runs on {done} trained fields: {asked - done} trainings saved" if asked > done else ""


def _field(type_: Any, row: Mapping[str, Any]) -> str:
    """The training digest of the field that a run samples from."""
    from sbbridge.study.trial import digests

    wanted = denoiser_tree(json.loads(row["config_json"]))
    return str(row["training_digest"]) if wanted is None else digests(resolve(type_, wanted, {}))[1]
