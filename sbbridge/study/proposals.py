"""What the search proposes: Optuna's choices, resolved and packed as Ray carries them; and what it asks first."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbbridge.config import ConfigurationError
from sbbridge.study.definition import Factor, Preset
from sbbridge.study.outcome import objectives
from sbbridge.study.space import Point, Space, value_at
from sbbridge.study.store import Store

FROM_AT_MOST = 10
"""Proposals that are taken from an earlier study."""


class Proposals:
    """Optuna's trial -> Ray's configuration; a class, because Ray pickles it.

    Args:
        space: what is searched.
        fields: of a trial, with the template of its job as the only one of "jobs".
    """

    def __init__(self, space: Space, fields: dict[str, Any]) -> None:
        self._space, self._fields = space, fields

    def __call__(self, trial: Any) -> dict[str, Any]:
        """Suggests, resolves, and packs the job."""
        from sbbridge.study.trial import digests

        choices = self._space.suggest(trial)
        tree = self._space.tree(choices)
        digest, training_digest = digests(tree)
        (template,) = self._fields["jobs"]
        job = {**template, "tree": tree, "digest": digest, "training_digest": training_digest}
        return {"trial": {**self._fields, "jobs": [job], "nfe": self._space.judged_at(choices),
                          "sampler": choices.get("sampler"), "optuna_number": trial.number,
                          "choices": choices}}  # fmt: skip


def first_points(space: Space, preset: Preset) -> list[dict[str, Any]]:
    """The preset's own configuration, and what else it asks first, each whole; none twice."""
    found: list[dict[str, Any]] = []
    for partial in ({}, *preset.points):
        point = space.complete(partial)
        if _allowed(space, point) and point not in found:
            found.append(point)
    return found


def earlier_points(folder: str, space: Space) -> tuple[list[dict[str, Any]], list[str]]:
    """The best proposals of an earlier study, as points of this space, and a line for each parameter left out.

    Of its search the Pareto front on validation, then the next best; of a study without one the same of its ablation.

    Raises:
        ConfigurationError: it is no study, has no completed run, or shares no parameter with this space.
    """
    held = _read(Path(folder))
    rows = _best_first(Path(folder), held)
    if not rows:
        raise ConfigurationError(f"--from {folder}: no run of it is completed")
    labels = {str(entry["path"]) for entry in held.get("space") or []}
    named = {factor.path: factor for factor in space.factors}
    found: list[dict[str, Any]] = []
    dropped: dict[str, str] = {}
    for row in rows:
        levels, unknown = _levels(row, space, labels)
        dropped |= unknown
        point = space.complete(levels) if levels else {}
        if point and _allowed(space, point) and point not in found:
            found.append(point)
    if not found:
        raise ConfigurationError(f"--from {folder}: nothing of what it varied is searched here (searched here: "
                                 f"{', '.join(named)})")  # fmt: skip
    return found[:FROM_AT_MOST], [f"--from {folder}: {path} is left out: {why}" for path, why in dropped.items()]


def _allowed(space: Space, point: Point) -> bool:
    return all(point[f.path] in f.values for f in space.factors if f.path in point)


def _levels(row: Mapping[str, Any], space: Space,
            searched: set[str]) -> tuple[dict[str, Any], dict[str, str]]:  # fmt: skip
    """A run's levels of this space's factors, and {path: why} of what it varied beside them."""
    tree = json.loads(row["config_json"])
    choices = json.loads(row["optuna_choices"]) if row["optuna_choices"] else {}
    named = {factor.path: factor for factor in space.factors}
    dropped = {path: "it is no parameter here" for path in {*choices, *searched} if path not in named}
    levels: dict[str, Any] = {}
    for path, factor in named.items():
        value = _level(space, factor, tree, choices)
        if value is None:
            continue
        if value in factor.values:
            levels[path] = value
        else:
            dropped[path] = f"{value} is none of its levels here ({', '.join(map(str, factor.values))})"
    return levels, dropped


def _level(space: Space, factor: Factor, tree: Mapping[str, Any], choices: Mapping[str, Any]) -> Any:
    path = factor.path
    if path in choices:
        return choices[path]
    if factor.multiple_of:
        return space.multiple(factor, tree)
    denoiser = tree["method"].get("denoiser") or {}
    held = value_at(tree, path)
    if held is None and path.startswith("method."):  # a field's option, where the study had fields and no paths
        held = value_at({"method": denoiser.get("method") or {}}, path)
    return held


def _read(folder: Path) -> dict[str, Any]:
    try:
        held: dict[str, Any] = json.loads((folder / "study.json").read_text())
        held["primary_metric"]["metric"], held["config_columns"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"--from {folder}: not a study's folder ({reason})") from None
    return held


def _best_first(folder: Path, held: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Completed rows: the front of quality and NFE on validation, then by quality."""
    store = Store(held.get("storage") or str(folder), held["config_columns"])
    rows = [row for row in store.trials() if row["status"] == "completed"]
    rows = [row for row in rows if row["phase"] == "search"] or rows
    judged = []
    for row in rows:
        fields = store.finished(row["training_digest"], row["digest"], row["seed"]) or {}
        choices = json.loads(row["optuna_choices"]) if row["optuna_choices"] else {}
        usual = held.get("headline_nfe", 10)
        at = choices.get("nfe", choices.get("method.num_steps", usual))
        quality, nfe, _ = objectives(fields, held["primary_metric"]["metric"], at, choices.get("sampler"))
        if math.isfinite(quality):
            judged.append((quality, nfe, row))
    judged.sort(key=lambda item: item[:2])
    front = [item for item in judged if not any(q <= item[0] and n <= item[1] and (q, n) != item[:2]
                                                for q, n, _ in judged)]  # fmt: skip
    return [row for _, _, row in (*front, *(item for item in judged if item not in front))]

