"""Tables about runs rather than settings: the search, what failed, and the further metrics."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis import formats
from analysis.design import Setting
from analysis.results import CHOICES, Results
from analysis.spent import evaluations_of, seconds_of
from analysis.tables import Column, Table, budget_label, context
from analysis.tables_grid import STEPS
from analysis.tables_measures import LOCALISED, VARIETY, all_over_seeds

_ERROR_LENGTH = 400
_NOT_A_RESULT = ("loss", "terminal_", "selection_")  # these metrics have figures of their own


def search_table(results: Results) -> Table:
    """The search's runs by validation score, best first; the best of many tries is optimistic."""
    known = {path: item for path, item in results.parameters.items() if path not in CHOICES}
    columns = [
        Column("value", f"validation {results.metric.short} {searched_at(results)} (optimistic)", "number"),
        *(Column(path, item.label) for path, item in known.items()),
        Column("seed", "seed", "count"), Column("status", "status"), Column("numbers", "Optuna numbers"),
        Column("evaluations", "training evaluations", "count"), Column("seconds", "seconds", "duration"),
    ]  # fmt: skip
    caption = (
        f"Optimistic: {results.metric.label} on validation, one seed a configuration, the best of "
        f"{formats.plural(len(results.runs['search']), 'run')}. No claim rests on this table; claims come from the "
        f"ablation."
    )
    table = Table("search", "Search", caption, columns)
    found = [(search_score(results, run), run) for run in results.runs["search"]]
    for value, run in sorted(found, key=lambda item: item[0]):
        chosen = results.proposed(run)
        numbers = run["optuna_numbers"] or []
        row: dict[str, Any] = {path: item.text(chosen.get(path)) for path, item in known.items()}
        row |= {
            "value": value if math.isfinite(value) else None, "seed": run["seed"], "status": run["status"],
            "numbers": ", ".join(str(number) for number in numbers), "seconds": seconds_of(run),
            "evaluations": evaluations_of(run),
        }  # fmt: skip
        table.add(row, run_facets(results, run), run_name(run))
    return table


def search_score(results: Results, run: dict[str, Any], budget: int | None = None) -> float:
    """A search run's validation score, infinite without one; where it chose its number of steps, at that many calls."""
    if budget is None:
        steps = results.proposed(run).get(STEPS)
        budget = int(steps) if steps in results.budgets else results.headline
    score = results.scores["search"].get(run["digest"], budget)
    if score is None or run["status"] != "completed":
        return math.inf
    return score.validation.get(int(run["seed"]), math.inf)


def searched_at(results: Results, budget: int | None = None) -> str:
    """Where the search's runs are compared: at one NFE, or each at the number of steps that it chose."""
    if budget is None and STEPS in results.parameters:
        return "at the number of steps that each chose"
    return budget_label(results.headline if budget is None else budget)


def failures_table(results: Results) -> Table:
    """Every run that did not complete, with its error."""
    columns = [
        Column("phase", "phase"), Column("setting", "setting"), Column("seed", "seed", "count"),
        Column("status", "status"),
        Column("error", "error"), Column("seconds", "seconds", "duration"), Column("host", "host"),
        Column("digest", "digest"),
    ]  # fmt: skip
    runs = [run for phase in results.runs.values() for run in phase]
    stopped = [run for run in runs if run["status"] != "completed"]
    counts = {status: sum(run["status"] == status for run in stopped) for status in ("failed", "pruned", "running")}
    caption = (
        f"{counts['failed']} failed, {counts['pruned']} pruned (stopped early by the scheduler) and "
        f"{counts['running']} "
        f"unfinished of {formats.plural(len(runs), 'run')}. “Running” means in progress, or cut off before it could "
        f"report."
    )
    table = Table("not_completed", "Failed, pruned and unfinished runs", caption, columns)
    settings = {setting.digest: setting for setting in results.settings}
    for run in stopped:
        setting = settings.get(run["digest"]) if run["phase"] == "ablation" else None
        row = {name: run[name] for name in ("phase", "seed", "status", "seconds", "host")}
        row |= {"setting": setting.label if setting else _describe(results, run), "digest": str(run["digest"])[:12]}
        row["error"] = (run["error"] or "")[:_ERROR_LENGTH]
        table.add(row, run_facets(results, run, setting), run_name(run))
    return table


def run_facets(results: Results, run: Mapping[str, Any], setting: Setting | None = None) -> dict[str, str]:
    """What the report's filters know of a run; of the ablation's as of their settings."""
    known = {"method": formats.level(run["method"]), **results.levels(results.leaves_of(run))}
    if run["phase"] == "search":
        chosen = results.proposed(run)
        known |= {results.parameters[path].label: results.parameters[path].text(chosen[path]) for path in chosen}
    known = results.facets(setting) if setting is not None else known
    return {**known, "phase": str(run["phase"]), "seed": str(run["seed"]), **results.place}


def run_name(run: Mapping[str, Any]) -> str:
    """What the report calls a run: digest and seed, and its phase where it is not the ablation."""
    phase = "" if run["phase"] == "ablation" else f"-{run['phase']}"
    return f"{run['digest']}-{run['seed']}{phase}"


def further_metrics_table(results: Results) -> Table:
    """Every other metric of the evaluation, one row a setting, at the headline NFE where it depends on sampling."""
    names = [name for name in results.collected.metric_names if name != results.metric.name and _is_result(name)]
    rows = results.collected.select(names)
    rows = rows[(rows["phase"] == "ablation") & (rows["role"] == "model") & rows["value"].notna()]
    rows = rows[(rows["split"] != "validation") & (rows["split"] != "train")]
    names = [str(name) for name in sorted(rows["metric"].unique())]
    columns = [Column("setting", "setting"), *(Column(name, formats.metric(name), "interval") for name in names)]
    caption = (
        f"Mean ± half of the 95 % t interval over seeds; what depends on sampling is measured with the sampler of the "
        f"ablation tables, {budget_label(results.headline)}. {context(results, results.settings)}"
    )
    table = Table("further_metrics", "Further metrics", caption, columns)
    last = all_over_seeds(results, _comparable(results, rows), last=True)
    measured = set(rows["digest"])
    for setting in results.settings if names else []:
        if setting.digest in measured:
            found = {name: last(setting, name) for name in names}
            table.add({"setting": setting.label, **found}, results.facets(setting), setting.digest)
    return table


def _comparable(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """What depends on sampling at the most calls within the headline's, with the sampler of the setting's score.

    A metric that was measured with another sampler only is still worth reading.
    """
    scores = {setting.digest: score.sampler for setting in results.settings if (score := results.score(setting))}
    calls = rows["nfe"].fillna(0).astype(int)
    sampled = rows["nfe"].notna() & (calls <= results.headline) & rows["digest"].isin(list(scores))
    used = zip(rows["digest"], rows["sampler"].fillna(""), rows["grid"].fillna(""), strict=True)
    same = np.fromiter((scores.get(digest) == (sampler, grid) for digest, sampler, grid in used), dtype=bool)
    rows = rows.assign(calls=calls, sampled=sampled, chosen=sampled & same)
    for name in ("sampled", "chosen"):
        rows = rows[rows[name] | ~rows.groupby(["digest", "metric"])[name].transform("any")]
    most = rows.groupby(["digest", "metric"])["calls"].transform("max")
    return rows[~rows["sampled"] | (rows["calls"] == most)]


def _is_result(name: str) -> bool:
    # What a sample covers and how local a coupling is have tables of their own.
    return is_outcome(name) and name not in VARIETY and not name.startswith(LOCALISED)


def is_outcome(name: str) -> bool:
    """Whether a metric says what came of a run: no curve of its training, no time, no memory."""
    return not name.startswith(_NOT_A_RESULT) and not name.endswith("_seconds") and "memory" not in name


def _describe(results: Results, run: dict[str, Any]) -> str:
    if run["phase"] == "search":
        parts = [
            f"{results.parameters[path].label} = {results.parameters[path].text(level)}"
            for path, level in results.proposed(run).items()
        ]
    else:
        leaves = results.leaves_of(run)
        parts = [f"{factor.label} = {formats.level(leaves.get(factor.path))}" for factor in results.design.factors]
    return ", ".join(parts) or str(run["method"])
