"""ASBM's tables: FID against NFE, distillation, forward steps and β_max; the paper's own numbers are not known."""

from collections.abc import Callable, Sequence
from typing import Any

from analysis import formats
from analysis.cells import Query
from analysis.design import Setting
from analysis.errors import InputError
from analysis.fields import Fields
from analysis.published import SOURCES, published
from analysis.results import Results
from analysis.statistics import mean_interval
from analysis.tables import Column, Table, context
from analysis.tables_asked import asked_table
from analysis.tables_measures import all_over_seeds, at_headline, completed, measure_rows, over_seeds

ANOTHER_PROTOCOL = (
    "Published rows are FIDs of 50,000 images against the training set; ours are against the test split, at its size, "
    "which is larger by itself: read them beside each other, not against each other."
)
UNKNOWN = (
    "The ASBM paper's own numbers (Shin et al. 2026, arXiv 2602.15396) are not known to this project, so none stand "
    "here."
)
_STEPS, _NOISE, _DISTILLATION = "method.simulation.num_steps", "reference.beta_max", "method.distillation."
_TERMINAL = "terminal_covariance_error"


def nfe_tables(parts: Sequence[Results]) -> list[Table]:
    """FID against NFE: every method of the study; of CIFAR-10 with what DDIM's paper prints."""
    tables = []
    for results in parts:
        query = Query(("setting",), ("nfe",), results.metric)
        table = asked_table(results, Fields(results, "ablation"), query)
        table.key, table.title = "preset_asbm_nfe", f"{table.title}, {formats.level(results.dataset)}"
        table.caption += f" {UNKNOWN}"
        if results.dataset == "cifar10" and results.metric.features == "inception":
            _add_ddim(table)
        tables.append(table)
    return tables


def distillation_tables(parts: Sequence[Results]) -> list[Table]:
    """One network call: the distilled methods and what they were distilled from, with precision and recall."""
    return _for_each(parts, _distilled, "asbm_distillation", "One-step distillation", ["precision", "recall"],
                     "no run was distilled (method.distillation)", 1)  # fmt: skip


def forward_tables(parts: Sequence[Results]) -> list[Table]:
    """How many steps simulate the coupling."""
    return _for_each(parts, lambda results: _levels(results, _STEPS), "asbm_forward_steps", "Steps of the simulation",
                     ["transport_cost", _TERMINAL], f"{_STEPS} was not varied")  # fmt: skip


def noise_tables(parts: Sequence[Results]) -> list[Table]:
    """β_max: quality, straightness, and whether the prior is covered."""
    return _for_each(parts, lambda results: _levels(results, _NOISE), "asbm_beta_max", "Noise level β_max",
                     ["straightness", "transport_cost", _TERMINAL], f"{_NOISE} was not varied")  # fmt: skip


MAKERS: dict[str, Callable[[Sequence[Results]], list[Table]]] = {
    "asbm-nfe": nfe_tables,
    "asbm-distillation": distillation_tables,
    "asbm-forward-steps": forward_tables,
    "asbm-beta-max": noise_tables,
}


def _for_each(parts: Sequence[Results], choose: Callable[[Results], list[Setting]], key: str, title: str,
              measures: Sequence[str], missing: str, budget: int | None = None) -> list[Table]:  # fmt: skip
    tables = [
        _table(results, settings, key, title, measures, budget) for results in parts if (settings := choose(results))
    ]
    if not tables:
        raise InputError(f"{parts[0].collected.folder}: {missing}")
    return tables


def _table(results: Results, settings: Sequence[Setting], key: str, title: str, measures: Sequence[str],
           budget: int | None) -> Table:  # fmt: skip
    recorded = [name for name in measures if name in results.collected.metric_names]
    budgets = [budget] if budget is not None else list(results.budgets)
    columns = [
        Column("setting", "setting"), Column("n", "n (seeds)", "count"), Column("memory", "retained memory", "number"),
        *(Column(f"nfe_{n}", f"{results.metric.short}, NFE {n}", "interval") for n in budgets),
        *(Column(name, formats.metric(name), "interval") for name in recorded),
        Column("floor", "floor", "number"), Column("null", "null", "number"),
        Column("evaluations", "training evaluations", "count"), Column("failed", "failed runs", "count"),
    ]  # fmt: skip
    caption = (
        f"{results.metric.label} on the test split, mean ± half of the 95 % t interval over seeds; lower is better. "
        f"{context(results, settings)} {UNKNOWN}"
    )
    table = Table(f"preset_{key}", f"{title}, {formats.level(results.dataset)}", caption, columns)
    for setting in settings:
        row: dict[str, Any] = {
            "setting": setting.label, "n": max(results.interval(setting, n).n for n in budgets),
            "memory": next((run["retained_memory"] for run in results.setting_runs(setting)), None),
            **{f"nfe_{n}": results.interval(setting, n) for n in budgets},
            **{name: _measure(results, setting, name) for name in recorded},
            "floor": results.floor.mean, "null": results.null(setting, budget).mean,
            "evaluations": results.cost(setting).evaluations, "failed": results.failed(setting, budget),
        }  # fmt: skip
        table.add(row, results.facets(setting))
    return table


def _measure(results: Results, setting: Setting, name: str) -> Any:
    """A measure of the paths, at the headline's sampler where it was sampled; of training, its last value."""
    rows = completed(results, setting, measure_rows(results, [name]))
    if name == _TERMINAL:
        return all_over_seeds(results, rows, last=True)(setting, name)
    found = at_headline(results, setting, rows)
    return found if found.n else over_seeds(rows)


def _levels(results: Results, path: str) -> list[Setting]:
    settings = results.factor_settings(path)
    return settings if len(settings) > 1 else []


def _distilled(results: Results) -> list[Setting]:
    """Distilled settings, each after the one that its configuration is without the distillation."""
    found: list[Setting] = []
    for setting in results.settings:
        if any(path.startswith(_DISTILLATION) and value is not None for path, value in setting.leaves.items()):
            teacher = next((other for other in results.settings if _without(other) == _without(setting)
                            and other.digest != setting.digest), None)  # fmt: skip
            found += [item for item in (teacher, setting) if item is not None and item not in found]
    return found


def _without(setting: Setting) -> dict[str, str]:
    return {
        path: formats.level(value) for path, value in setting.leaves.items()
        if value is not None and not path.startswith((_DISTILLATION, "evaluation."))
    }  # fmt: skip


def _add_ddim(table: Table) -> None:
    """Rows of another paper on other networks: marked, in no mean, never bold."""
    known = {column.name for column in table.columns}
    rows: dict[str, dict[str, Any]] = {}
    for item in published("DDIM", "Tab. 1"):
        name = f"published: {item.row} ({SOURCES['DDIM']}, {item.table})"
        if f"value_{item.nfe}" in known:
            row = rows.setdefault(name, {"setting": name, "n": "1 run"})
            row[f"value_{item.nfe}"] = mean_interval([item.value])
    for row in rows.values():
        table.add(row)
    if rows:
        table.caption += f" {ANOTHER_PROTOCOL}"
