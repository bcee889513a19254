"""The tables of a study: one factor at a time, the grid, the arms, the Pareto front, the search, the failures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from analysis import formats, members
from analysis.comparisons import Comparison, arm_comparisons, counted, factor_comparisons, grid_comparisons
from analysis.costs import budget_of, matched_cost
from analysis.design import Setting, in_factor
from analysis.ldsb.names import ON_REPORTED, chosen_on_reported
from analysis.results import Results

TRADE = "trade"  # of a row among rivals: calls and value, of which a front has the least
Kind = Literal["text", "number", "interval", "limits", "count", "duration", "p", "ranked", "decimal"]


@dataclass(frozen=True)
class Column:
    """A column: its name in the rows, its head for people, how its values are written, what filters look at."""

    name: str
    label: str
    kind: Kind = "text"
    facets: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Table:
    """A table that knows its caption and, for each row, what the report's filters need.

    Attributes:
        key: file name without extension.
        title: a few words.
        caption: what the reader must know: split, n, seeds, floor, null.
        columns: in the order shown.
        rows: {column name: value}; a value is text, a number, an `Interval` or None.
        facets: for each row {filter: value}.
        runs: for each row the run that it is about (`tables_runs.run_name`), or the digest of a setting; else empty.
        bold: (row, column name) of the cells that are best.
        rivals: of a front, every row that it was chosen from, with its `TRADE`: the page chooses again under filters.
    """

    key: str
    title: str
    caption: str
    columns: list[Column]
    rows: list[dict[str, Any]] = field(default_factory=list)
    facets: list[dict[str, str]] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    bold: set[tuple[int, str]] = field(default_factory=set)
    rivals: "Table | None" = None

    def add(self, row: dict[str, Any], facets: dict[str, str] | None = None, run: str = "") -> None:
        """Adds a row."""
        self.rows.append(row)
        self.facets.append(facets or {})
        self.runs.append(run)


def ablation_tables(results: Results) -> list[Table]:
    """Every table of the ablation that the records can fill."""
    tables = [factor_table(results, factor.path) for factor in results.design.factors]
    tables = [table for table in tables if len(table.rows) > 1]
    if results.grid_settings():
        labels = " × ".join(results.design.label(path) for path in results.design.grid)
        tables.append(setting_table(results, "grid", labels, _by_levels(results), grid_comparisons(results)))
    if results.arm_settings():
        tables.append(setting_table(results, "arms", "Methods", results.arm_settings(), arm_comparisons(results)))
    return tables


def factor_table(results: Results, path: str) -> Table:
    """The levels of one factor with all others at the centre."""
    settings = results.factor_settings(path)
    return setting_table(
        results, f"factor_{path}", results.design.label(path), settings, factor_comparisons(results, path), path
    )


def setting_table(results: Results, key: str, title: str, settings: Sequence[Setting],
                  comparisons: Sequence[Comparison], factor: str | None = None,
                  names: Mapping[str, str] | None = None) -> Table:  # fmt: skip
    """A row a setting: its score at every NFE, its comparison, its cost.

    Args:
        names: {digest: the row's name} where it is not the setting's label.
    """
    columns = _setting_columns(results, bool(comparisons), any(budget_of(setting) for setting in settings))
    table = Table(key, title, _caption(results, settings, comparisons), columns)
    compared = {comparison.setting.place: comparison for comparison in comparisons}
    for setting in settings:
        score, cost = results.score(setting), results.cost(setting)
        label = row_label(results, setting, key, factor, (names or {}).get(setting.digest))
        row: dict[str, Any] = {"setting": label, "n": results.interval(setting).n}
        for budget in results.budgets:
            row[f"nfe_{budget}"] = results.interval(setting, budget)
        row |= {
            "sampler": " / ".join(formats.level(part) for part in score.sampler if part) if score else None,
            "floor": results.floor.mean,
            "null": results.null(setting).mean,
            "simulation": cost.simulation,
            "optimisation": cost.optimisation,
            "evaluations": cost.evaluations,
            "seconds": cost.seconds,
            "failed": results.failed(setting),
        }
        if setting.place in compared:
            comparison = compared[setting.place]
            row |= {
                "difference": comparison.paired.difference,
                "ratio": comparison.paired.ratio,
                "p": comparison.corrected,
            }
        table.add(row, results.facets(setting), setting.digest)
    return table


def _by_levels(results: Results) -> list[Setting]:
    """The grid's settings by the first factor's level, then by the next."""
    found = results.grid_settings()
    for path in reversed(results.design.grid):
        found = members.by_level(results.design, found, path)
    return found


def _setting_columns(results: Results, compared: bool, budgeted: bool) -> list[Column]:
    headline = results.headline
    quality = [Column(f"nfe_{n}", _head(results.metric.short, n), "interval", at(n)) for n in results.budgets]
    comparison = [
        Column("difference", _head("difference", headline), "interval", at(headline)),
        Column("ratio", _head("ratio", headline), "limits", at(headline)),
        Column("p", "p (Holm)", "p", at(headline)),
    ]
    return [
        Column("setting", "setting"),
        Column("n", "n (seeds)", "count"),
        *quality,
        Column("floor", "floor", "number"),
        Column("null", _head("null", headline), "number", at(headline)),
        *(comparison if compared else []),
        Column("sampler", _head("sampler", headline), facets=at(headline)),
        Column("simulation", "evaluations: simulation", "count"),
        Column("optimisation", "evaluations: optimisation", "count"),
        *([Column("evaluations", "evaluations in all", "count")] if budgeted else []),
        Column("seconds", "seconds a run", "duration"),
        Column("failed", "failed runs", "count"),
    ]


def _caption(results: Results, settings: Sequence[Setting], comparisons: Sequence[Comparison]) -> str:
    text = [
        f"{results.metric.label} on the test split, mean ± half of the 95 % t interval over seeds; lower is better.",
        choice(results),
        context(results, settings),
        matched_cost(results, settings),
        members.shared(results.design, settings),
    ]
    if comparisons:
        references = list(dict.fromkeys(comparison.reference.label for comparison in comparisons))
        against = (
            f"“{references[0]}”"
            if len(references) == 1
            else f"{results.design.baseline_label} at the same other levels"
        )
        text.append(
            f"Difference and ratio are paired by seed against {against}; p is the paired t test on log ratios, "
            f"Holm-corrected over the {formats.plural(counted(comparisons), 'comparison')} of this table."
        )
    return " ".join(part for part in text if part)


def context(results: Results, settings: Sequence[Setting]) -> str:
    """n, seeds, floor and null in one sentence: what every table and figure must say."""
    centre = next((setting for setting in results.settings if setting.is_centre), None)
    null = results.null(centre) if centre else None
    null_text = (
        f"null ({results.design.baseline_label}) {formats.number(null.mean)}" if null and null.n else "no null was run"
    )
    counts = [results.interval(setting).n for setting in settings]
    return f"{counts_and_floor(results, counts)}; {null_text} {budget_label(results.headline)}."


def counts_and_floor(results: Results, counts: Sequence[int]) -> str:
    """n, seeds and floor, for those who name a null of their own; counts of 0 are of what was not measured."""
    found = sorted({count for count in counts if count})
    seeds = ", ".join(str(seed) for seed in results.seeds) or "none"
    n = "0" if not found else str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
    floor = (
        f"floor (real against real) {formats.number(results.floor.mean)}"
        if results.floor.n
        else "no floor was recorded"
    )
    return f"n = {n} (seeds {seeds}); {floor}"


def at(budget: int) -> dict[str, str]:
    """What filters look at in whatever holds at an NFE; nothing for metrics that need no sampling."""
    return {"NFE": str(budget)} if budget else {}


def budget_label(budget: int) -> str:
    """ "at NFE 10", or "without sampling" for metrics that need none."""
    return f"at NFE {budget}" if budget else "without sampling"


def _head(name: str, budget: int) -> str:
    return f"{name}, NFE {budget}" if budget else name


def choice(results: Results) -> str:
    """How samplers were chosen, in a sentence; nothing where there was nothing to choose."""
    ways = {score.chosen_by for score in results.scores["ablation"].by_key.values() if any(score.sampler)}
    if "validation" in ways:
        return "Sampler and time grid are chosen on validation for each setting and NFE."
    return "There are no validation values: the sampler is the study's first." if "first named" in ways else ""


def scores_table(results: Results) -> Table:
    """Every setting at every NFE in the long form, for people's own plots."""
    columns = [
        Column("setting", "setting"), Column("budget", "NFE at most", "count"),
        Column("counted", "counted NFE", "count"),
        Column("num_steps", "steps", "count"), Column("sampler", "sampler"), Column("grid", "grid"),
        Column("chosen_by", "sampler chosen by"), Column("n", "n (seeds)", "count"),
        Column("value", results.metric.label, "interval"),
        Column("validation", "validation mean", "number"), Column("floor", "floor", "number"),
        Column("null", "null", "number"),
    ]  # fmt: skip
    caption = f"Every setting at every NFE. {context(results, results.settings)}"
    table = Table("scores", "All scores of the ablation", caption, columns)
    for setting in results.settings:
        for budget in results.budgets:
            score = results.score(setting, budget)
            if score is None:
                continue
            row = {
                "setting": setting.label, "budget": budget, "counted": score.counted, "num_steps": score.num_steps,
                "sampler": score.sampler[0] or None, "grid": score.sampler[1] or None, "chosen_by": score.chosen_by,
                "n": score.interval.n, "value": score.interval,
                "validation": score.validation_mean if score.validation else None,
                "floor": results.floor.mean, "null": results.null(setting, budget).mean,
            }  # fmt: skip
            table.add(row, {**results.facets(setting), **at(budget)}, setting.digest)
    return table


def row_label(results: Results, setting: Setting, key: str, factor: str | None, name: str | None = None) -> str:
    """A setting's name in a table: its level in a factor's table, both levels in the grid's."""
    label = name or setting.label
    if key == "grid":
        label = ", ".join(
            f"{results.design.label(path)} = {formats.level(setting.level(path))}" for path in results.design.grid
        )
        if setting.is_centre:
            label += " (centre)"
    elif factor is not None and in_factor(setting, factor):
        label = formats.level(setting.level(factor))
        if setting.is_centre:
            label += " (centre)"
    label += f" ({ON_REPORTED})" if chosen_on_reported(setting.leaves) else ""
    return f"{label} (baseline)" if setting.is_baseline and not setting.is_centre else label

