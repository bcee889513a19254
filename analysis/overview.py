"""Methods × data sets: one table of scores, one of normalised scores, one of cost. Raw scores are never averaged."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from analysis import formats
from analysis.costs import largest_deviation, percent
from analysis.design import Setting
from analysis.families import TUNED, best_of_families
from analysis.ldsb.names import ON_REPORTED, chosen_on_reported
from analysis.results import Results
from analysis.statistics import Interval, holm, paired_difference
from analysis.tables import Column, Kind, Table, budget_label

_LEVEL = 0.05


@dataclass(frozen=True)
class Ranked:
    """An interval and its rank: 1 + how many others are better by more than chance; None without an interval."""

    interval: Interval
    rank: int | None


@dataclass
class Method:
    """A row of the overview: an arm, the centre, or the best tuned candidate of a family.

    Attributes:
        name: for people.
        table: the group of arms that it stands for.
        facets: what filters look at.
        settings: {data set: its setting there}.
        notes: {data set: the candidate that validation chose there}.
    """

    name: str
    table: str
    facets: dict[str, str]
    settings: dict[str, Setting] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def methods(parts: Sequence[Results]) -> list[Method]:
    """The rows of the overview in the order of the design; tuned candidates appear as the best of their family."""
    found: dict[tuple[str, str], Method] = {}
    for results in parts:
        for setting in results.settings:
            if setting.arm is None and not setting.is_centre and not setting.arms and not setting.is_baseline:
                continue
            tables = [(arm.table or "", arm.name) for arm in setting.arms] or [("", setting.label)]
            for table, name in tables:
                if table != TUNED:
                    _row(found, results, table, name, setting).settings[results.dataset] = setting
        for best in best_of_families(results):
            row = _row(found, results, TUNED, best.family, best.setting)
            row.settings[results.dataset] = best.setting
            row.notes[results.dataset] = f"{best.name}, best of {best.candidates} on validation"
    order = [*dict.fromkeys(table for results in parts for table in results.tables())]
    ranks = {table: rank for rank, table in enumerate(order)}
    return sorted(found.values(), key=lambda row: ranks.get(row.table, -1))


def _row(found: dict[tuple[str, str], Method], results: Results, table: str, name: str, setting: Setting) -> Method:
    facets = {key: value for key, value in results.facets(setting).items() if key not in results.place}
    facets |= {"table": table} if table else {}
    label = f"{name}, tuned" if table == TUNED else name
    label += f" ({ON_REPORTED})" if chosen_on_reported(setting.leaves) else ""
    return found.setdefault((table, name), Method(label, table, facets))


def ranked(results: Results, rows: Sequence[Method]) -> dict[str, Ranked]:
    """{method's name: its interval at the headline NFE and its rank on this data set}."""
    shown = {row.name: row.settings[results.dataset] for row in rows if results.dataset in row.settings}
    # A configuration may stand in two rows (published, and the best tuned one): it counts once.
    scores = {setting.digest: score.test for setting in shown.values() if (score := results.score(setting)) is not None}
    known = [digest for digest, values in scores.items() if len(values) > 1]
    pairs = list(combinations(known, 2))
    found = [paired_difference(scores[left], scores[right]) for left, right in pairs]
    behind = dict.fromkeys(known, 0)
    for (left, right), pair, p in zip(pairs, found, holm([pair.p_value for pair in found]), strict=True):
        if p < _LEVEL:
            higher = pair.ratio.mean > 1 if pair.ratio is not None else pair.difference.mean > 0
            behind[left if higher else right] += 1
    ranks = {digest: 1 + count for digest, count in behind.items()}
    return {name: Ranked(results.interval(setting), ranks.get(setting.digest)) for name, setting in shown.items()}


def normalised(results: Results, setting: Setting) -> Interval | None:
    """(value − floor) / (null − floor), None where floor or null are missing or do not differ as they should."""
    floor, null, value = results.floor, results.null(setting), results.interval(setting)
    if not value.n or not floor.n or not null.n or not null.mean > floor.mean:
        return None
    scale = null.mean - floor.mean
    mean, low, high = ((number - floor.mean) / scale for number in (value.mean, value.low, value.high))
    by_seed = {seed: (number - floor.mean) / scale for seed, number in value.by_seed.items()}
    return Interval(value.n, mean, low, high, by_seed=by_seed)


def overview_tables(parts: Sequence[Results]) -> list[Table]:
    """The tables of methods × data sets."""
    rows = methods(parts)
    return [_scores(parts, rows), _normalised(parts, rows), _cost(parts, rows)]


def _scores(parts: Sequence[Results], rows: Sequence[Method]) -> Table:
    ranks = {results.dataset: ranked(results, rows) for results in parts}
    best = {
        dataset: min((one.interval.mean for one in own.values() if one.interval.n), default=math.nan)
        for dataset, own in ranks.items()
    }
    counts = (
        Column("lowest", "data sets with the lowest mean", "count"),
        Column("first", "data sets with rank 1", "count"),
    )  # fmt: skip
    caption = (
        f"Each data set's own metric on the test split at the NFE in the head, mean ± half of the 95 % t interval over "
        f"seeds; lower is better. In brackets the rank: 1 + the number of methods that are better by more than "
        f"chance (paired by seed, Holm over all pairs of a data set). Metrics of different data sets do not compare "
        f"and are not averaged. {seeds_sentence(parts)}{_tuned_sentence(rows)}"
    )
    table = Table("overview", "Methods × data sets", caption, _columns(parts, "ranked", rows, counts))
    for row in rows:
        own = {dataset: by_name[row.name] for dataset, by_name in ranks.items() if row.name in by_name}
        table.add({
            "method": row.name, "table": row.table, **own,
            "lowest": sum(one.interval.n > 0 and one.interval.mean == best[name] for name, one in own.items()),
            "first": sum(one.rank == 1 for one in own.values()),
        }, row.facets)  # fmt: skip
    return table


def _normalised(parts: Sequence[Results], rows: Sequence[Method]) -> Table:
    caption = (
        f"Normalised score, (value − floor) / (null − floor), on the test split: 0 is real against real, 1 is the "
        f"null. Mean ± half of the 95 % t interval of the value over seeds; floor and null enter by their means, so "
        f"their own spread is left out. Empty where a data set has no floor or no null above it. "
        f"{seeds_sentence(parts)}{_tuned_sentence(rows)}"
    )
    table = Table("overview_normalised", "Normalised scores", caption, _columns(parts, "interval", rows))
    _fill(table, parts, rows, normalised)
    return table


def _cost(parts: Sequence[Results], rows: Sequence[Method]) -> Table:
    deviations = []
    for results in parts:
        shown = [row.settings[results.dataset] for row in rows if results.dataset in row.settings]
        spent = [cost for setting in shown if (cost := results.cost(setting).evaluations) > 0]
        if len(spent) > 1:
            deviations.append(f"{formats.level(results.dataset)} {percent(largest_deviation(spent))}")
    text = f" Largest deviation between methods, (max − min) / min: {', '.join(deviations)}." if deviations else ""
    caption = (
        "Counted network evaluations of one training, simulation and optimisation together, mean over seeds; of tuned "
        f"methods that of the candidate shown, not of its tuning.{text} {seeds_sentence(parts)}"
    )
    table = Table("overview_cost", "Training cost", caption, _columns(parts, "count", rows))
    _fill(table, parts, rows, lambda results, setting: results.cost(setting).evaluations or None)
    return table


def _fill(table: Table, parts: Sequence[Results], rows: Sequence[Method],
          cell: Callable[[Results, Setting], Any]) -> None:  # fmt: skip
    for row in rows:
        own = {
            results.dataset: cell(results, row.settings[results.dataset])
            for results in parts if results.dataset in row.settings
        }  # fmt: skip
        if any(value is not None for value in own.values()):
            table.add({"method": row.name, "table": row.table, **own}, row.facets)


def _columns(parts: Sequence[Results], kind: Kind, rows: Sequence[Method],
             more: Sequence[Column] = ()) -> list[Column]:  # fmt: skip
    tables = [Column("table", "settings")] if any(row.table for row in rows) else []
    data_sets = [
        Column(results.dataset, head(results) if kind == "ranked" else formats.level(results.dataset), kind,
               results.place)
        for results in parts
    ]  # fmt: skip
    return [Column("method", "method"), *tables, *data_sets, *more]


def head(results: Results) -> str:
    """A data set with its metric, floor and null: "digits: FD (digits-CNN) at NFE 10; floor 0.31, null 1.9"."""
    return (
        f"{formats.level(results.dataset)}: {results.metric.label} {budget_label(results.headline)}; "
        f"floor {formats.number(results.floor.mean)}, null {formats.number(null_of(results).mean)}"
    )


def null_of(results: Results) -> Interval:
    """The null of a data set: that of the centre, or of whichever setting has one."""
    settings = sorted(results.settings, key=lambda setting: not setting.is_centre)
    nulls = [null for setting in settings if (null := results.null(setting)).n]
    return nulls[0] if nulls else Interval(0, math.nan, math.nan, math.nan)


def seeds_sentence(parts: Sequence[Results]) -> str:
    """n and seeds of every data set in a sentence, and what the null is."""
    counts = sorted({results.interval(setting).n for results in parts for setting in results.settings} - {0})
    n = "0" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds = ", ".join(str(seed) for seed in sorted({s for results in parts for s in results.seeds})) or "none"
    nulls = list(dict.fromkeys(results.design.baseline_label for results in parts))
    null = f"recorded, or the baseline ({'; '.join(nulls)})" if nulls != ["none named"] else "as recorded"
    return f"n = {n} (seeds {seeds}); floor: real against real; null: {null}."


def _tuned_sentence(rows: Sequence[Method]) -> str:
    if not any(row.table == TUNED for row in rows):
        return ""
    return (
        " A tuned row is, on each data set, the candidate of its family that is best on validation at that NFE; its "
        "name stands in the table “Best of each family”."
    )
