"""What a trial tells: its objectives, from everything that its training found. Loads neither Ray nor Optuna."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from sbbridge.study.definition import OBJECTIVES

QUALITY, NFE, COST = OBJECTIVES.values()
NOT_FINITE = "not_finite_share"
"""The metric of an entry whose other metrics are NaN: the share of its samples that hold NaN or infinity."""
LAST = 1e300
"""A quality behind every other."""
NAMED = 8
"""Entries that a note names, at most."""


def objectives(fields: Mapping[str, Any], metric: str, nfe: int, sampler: str | None) -> tuple[float, float, str]:
    """(log of the best validation quality at no more than `nfe` calls, its counted calls, its sampler).

    One training is evaluated at every NFE and sampler; the trial's own choice picks the entry. A sampler that the
    method cannot run stands for any; one that needs more calls is taken at its least. (nan, nan, "") if there is none,
    or if none of them is a finite number: no other choice stands for one whose samples are not finite.
    """
    entries = [e for e in fields.get("entries", ()) if e["metric"] == metric]
    mine = [e for e in entries if sampler is None or e["sampler"] == sampler] or entries
    within = [e for e in mine if e["nfe"] <= nfe]
    if not within and mine:  # two calls are the least that Heun can do
        least = min(e["nfe"] for e in mine)
        within = [e for e in mine if e["nfe"] == least]
    within = [e for e in within if 0 < e["value"] < math.inf]
    if not within:
        return math.nan, math.nan, ""
    best = min(within, key=lambda entry: entry["value"])
    return math.log(best["value"]), float(best["nfe"]), best["sampler"]


def not_finite(entries: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """(why a run with these entries has failed, what is to be noted of one that has not); None where nothing is.

    A run fails where not one entry on validation is finite; otherwise those that are not are named.
    """
    shares = {_place(e): e["value"] for e in entries if e["metric"] == NOT_FINITE}
    judged = [e for e in entries if e["metric"] != NOT_FINITE]
    bad = list(dict.fromkeys(_place(e) for e in judged if not math.isfinite(e["value"])))
    if not bad:
        return None, None
    words = [f"{_per_cent(shares[place]) + ' of rows at ' if place in shares else ''}NFE {place[2]}, {place[0]}"
             for place in sorted(bad, key=lambda place: (-shares.get(place, 0), place[2], place[0]))]  # fmt: skip
    if len(bad) == len({_place(e) for e in judged}):
        return f"samples are not finite ({words[0]})", None
    more = f"; and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return None, f"samples are not finite ({'; '.join(words[:NAMED])}{more}): these entries are NaN, and rank last"


def _per_cent(share: float) -> str:
    return f"{100 * share:{'.0f' if share > 0.1 else '.2g'}} %"


def _place(entry: Mapping[str, Any]) -> tuple[str, str, int]:
    return entry["sampler"], entry.get("grid") or "", entry["nfe"]


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
    """What a trial tells the scheduler on its way; an infinite quality, that of samples which are not finite, as LAST.

    ASHA's percentiles of infinite numbers would be NaN, and hold nobody back.
    """
    return {"evaluations": evaluations, "quality": LAST if quality == math.inf else quality}


def outcome(config: dict[str, Any], index: int, fields: dict[str, Any]) -> dict[str, Any]:
    """What a trial tells the driver of its job at `index`: its objectives, and everything that it found as JSON."""
    values, chosen = reported(fields, config["metric"], config["nfe"], config["sampler"])
    return {**values, "sampler": chosen, "index": index, "fields": json.dumps(fields)}
