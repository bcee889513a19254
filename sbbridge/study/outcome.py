"""What a trial tells: its objectives, from everything that its training found. Loads neither Ray nor Optuna."""

import json
import math
from collections.abc import Mapping
from typing import Any

from sbbridge.study.definition import OBJECTIVES

QUALITY, NFE, COST = OBJECTIVES.values()


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


def training_cost(fields: Mapping[str, Any]) -> float:
    """Network evaluations of a training, simulation and its denoiser's included; NaN where they were not counted."""
    counted = [fields.get(f"{what}_evaluations") for what in ("simulation", "optimisation")]
    if any(value is None for value in counted):
        return math.nan
    return float(sum(counted) + (fields.get("denoiser_evaluations") or 0))  # type: ignore[arg-type]


def reported(fields: Mapping[str, Any], metric: str, nfe: int, sampler: str | None) -> tuple[dict[str, float], str]:
    """Every objective by its name, and the sampler that they were had with."""
    quality, calls, chosen = objectives(fields, metric, nfe, sampler)
    spent = training_cost(fields)
    return {QUALITY: quality, NFE: calls, COST: math.log(spent) if spent > 0 else math.nan}, chosen


def point(evaluations: int, quality: float) -> dict[str, Any]:
    """What a trial tells the scheduler on its way."""
    return {"evaluations": evaluations, "quality": quality}


def outcome(config: dict[str, Any], index: int, fields: dict[str, Any]) -> dict[str, Any]:
    """What a trial tells the driver of its job at `index`: its objectives, and everything that it found as JSON."""
    values, chosen = reported(fields, config["metric"], config["nfe"], config["sampler"])
    return {**values, "sampler": chosen, "index": index, "fields": json.dumps(fields)}
