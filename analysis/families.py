"""Groups of arms: one table a group, and of the tuned ones the best of each family, chosen on validation."""

import math
import re
from dataclasses import dataclass

from analysis import formats
from analysis.comparisons import table_comparisons
from analysis.costs import matched_cost
from analysis.design import Setting
from analysis.quality import Score
from analysis.results import Results
from analysis.tables import Column, Table, at, context, setting_table

TUNED = "tuned"


@dataclass(frozen=True)
class Best:
    """The candidate of a family that is best on validation at an NFE budget.

    Attributes:
        family: the family.
        name: the candidate's name.
        setting: its setting.
        score: its score; what is reported of it is the test split.
        candidates: how many candidates the family had, itself included.
    """

    family: str
    name: str
    setting: Setting
    score: Score
    candidates: int


def families(results: Results) -> dict[str, list[Setting]]:
    """{family: its tuned candidates}; an arm without a family is one of its own."""
    found: dict[str, list[Setting]] = {}
    for setting in results.in_table(TUNED):
        found.setdefault(_family(setting), []).append(setting)
    return found


def best_of_families(results: Results, budget: int | None = None) -> list[Best]:
    """For each family the candidate with the least validation mean; none for a family without validation values."""
    chosen = []
    for family, settings in families(results).items():
        scored = [(setting, score) for setting in settings if (score := results.score(setting, budget)) is not None]
        scored = [(setting, score) for setting, score in scored if score.validation]
        if scored:
            # Most seeds first: a candidate that failed on a seed must not win by leaving it out.
            setting, score = min(scored, key=lambda item: (-len(item[1].validation), item[1].validation_mean))
            chosen.append(Best(family, setting.name_in(TUNED) or setting.label, setting, score, len(settings)))
    return chosen


def headliners(results: Results) -> list[Setting]:
    """The settings without the tuned candidates that lost within their family: what a figure can hold."""
    best = {item.setting.digest for item in best_of_families(results)}
    return [
        setting for setting in results.settings
        if setting.digest in best or setting.is_centre or setting.is_baseline
        or any(arm.table != TUNED for arm in setting.arms) or not setting.arms
    ]  # fmt: skip


def table_slug(table: str) -> str:
    """A group's name as part of a file's name."""
    return re.sub(r"\W+", "_", table).strip("_").lower()


def group_tables(results: Results) -> list[Table]:
    """A table for each group of arms; after that of the tuned ones the best of each family."""
    found = []
    for table in results.tables():
        settings = results.in_table(table)
        if settings:
            names = {setting.digest: setting.name_in(table) or setting.label for setting in settings}
            title = f"Methods, {table}"
            comparisons = table_comparisons(results, table)
            made = setting_table(results, f"arms_{table_slug(table)}", title, settings, comparisons, names=names)
            # An arm may stand in several tables: here it is this one's.
            made.facets = [{**facets, "table": table} for facets in made.facets]
            found.append(made)
        if table == TUNED and families(results):
            found.append(best_of_family_table(results))
    return found


def best_of_family_table(results: Results) -> Table:
    """For each family and NFE the candidate that validation chose, with its score on test."""
    columns = [
        Column("family", "family"), Column("budget", "NFE at most", "count"), Column("setting", "best candidate"),
        Column("candidates", "candidates", "count"), Column("n", "n (seeds)", "count"),
        Column("validation", "validation mean", "number"), Column("value", f"{results.metric.short}, test", "interval"),
        Column("floor", "floor", "number"), Column("null", "null", "number"), Column("sampler", "sampler"),
        Column("simulation", "evaluations: simulation", "count"),
        Column("optimisation", "evaluations: optimisation", "count"),
        Column("evaluations", "evaluations in all", "count"),
        Column("seconds", "seconds a run", "duration"), Column("failed", "failed runs", "count"),
    ]  # fmt: skip
    tuned = [setting for settings in families(results).values() for setting in settings]
    without = [family for family, settings in families(results).items() if not _validated(results, settings)]
    missing = f" Without validation values, and so without a choice: {', '.join(without)}." if without else ""
    caption = (
        f"{results.metric.label}: for each family and NFE the candidate with the least mean on validation (those with "
        f"most seeds first), shown with its score on the test split, which took no part in the choice; mean ± half of "
        f"the 95 % t interval over seeds. Cost is that of one training of the candidate shown, not of the tuning. "
        f"{context(results, tuned)} {matched_cost(results, tuned)}{missing}"
    )
    table = Table("best_of_family", "Best of each family", caption.strip(), columns)
    order = list(families(results))
    rows = [(best, budget) for budget in results.budgets for best in best_of_families(results, budget)]
    for best, budget in sorted(rows, key=lambda item: order.index(item[0].family)):
        cost = results.cost(best.setting)
        row = {
            "family": best.family, "budget": budget, "setting": best.name, "candidates": best.candidates,
            "n": best.score.interval.n, "validation": best.score.validation_mean, "value": best.score.interval,
            "floor": results.floor.mean, "null": results.null(best.setting, budget).mean,
            "sampler": " / ".join(formats.level(part) for part in best.score.sampler if part),
            "simulation": cost.simulation, "optimisation": cost.optimisation, "evaluations": cost.evaluations,
            "seconds": cost.seconds, "failed": results.failed(best.setting, budget),
        }  # fmt: skip
        facets = {**results.facets(best.setting), "method": best.family, "table": TUNED, **at(budget)}
        table.add(row, facets, best.setting.digest)
    return table


def _validated(results: Results, settings: list[Setting]) -> bool:
    scores = [results.score(setting, budget) for setting in settings for budget in results.budgets]
    return any(score is not None and math.isfinite(score.validation_mean) for score in scores)


def _family(setting: Setting) -> str:
    arm = next(arm for arm in setting.arms if arm.table == TUNED)
    return arm.family or arm.name
