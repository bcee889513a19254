"""Tables of any fields against any others, as `python -m analysis table` asks for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis import formats
from analysis.cells import Cell, Key, Query, arrange
from analysis.errors import InputError, unknown
from analysis.fields import MEASURED, Fields
from analysis.quality import floor_of, metric_rows
from analysis.results import Results
from analysis.spent import evaluations_of, seconds_of
from analysis.statistics import (
    BOOTSTRAP_MINIMUM,
    Interval,
    PairedDifference,
    bootstrap_interval,
    compare_seeds,
    holm,
    mean_interval,
    paired_difference,
)
from analysis.tables import Column, Table

_LEVEL = 0.05
_Cells = Mapping[tuple[Key, Key], Cell]


@dataclass(frozen=True)
class Baseline:
    """What every cell is compared with: the cell with these levels in place of its own."""

    levels: Mapping[str, str]

    @property
    def label(self) -> str:
        """In words."""
        return ", ".join(f"{name} = {level}" for name, level in self.levels.items())

    def of(self, query: Query, row: Key, column: Key) -> tuple[Key, Key]:
        """The reference of a cell."""
        key = dict(zip(query.fields, (*row, *column), strict=True)) | dict(self.levels)
        return tuple(key[name] for name in query.rows), tuple(key[name] for name in query.columns)


def asked_table(results: Results, fields: Fields, query: Query, baseline: str | None = None,
                bootstrap: bool = False) -> Table:  # fmt: skip
    """A row for each combination of the rows' levels, a value for each of the columns'.

    Raises:
        InputError: nothing was measured there, or the baseline is none of its levels.
    """
    cells = arrange(results, fields, query)
    if not cells:
        raise InputError(_nothing(results, query))
    rows, columns = _ordered(fields, query.rows, [row for row, _ in cells]), _ordered(
        fields, query.columns, [column for _, column in cells]
    )  # fmt: skip
    chosen = None if baseline is None else _baseline(fields, query, baseline, cells)
    compared = _compare(query, cells, chosen) if chosen else {}
    table = Table("table", _title(fields, query), "", _columns(fields, query, columns, bool(chosen)))
    levels = _levels(results, query)
    for row in rows:
        held = {column: cells[row, column] for column in columns if (row, column) in cells}
        entry: dict[str, Any] = dict(zip(query.rows, row, strict=True))
        for column, cell in held.items():
            name = _name(column)
            entry[f"value{name}"] = _interval(cell, bootstrap)
            if (row, column) in compared:
                pair, corrected = compared[row, column]
                entry |= {f"difference{name}": pair.difference, f"ratio{name}": pair.ratio, f"p{name}": corrected}
        table.add(entry | levels.of(held) | _runs(results, query, held))
    _mark_best(table, query, cells, rows, columns)
    table.caption = _caption(results, query, cells, chosen, len(compared), bootstrap)
    return table


def _columns(fields: Fields, query: Query, columns: Sequence[Key], compared: bool) -> list[Column]:
    found = [Column(name, fields.label(name)) for name in query.rows]
    for column in columns:
        name = _name(column)
        head = ", ".join(f"{fields.label(field)} {level}" for field, level in zip(query.columns, column, strict=True))
        found.append(
            Column(f"value{name}", f"{query.metric.short}, {head}" if head else query.metric.short, "interval")
        )
        if compared:
            after = f", {head}" if head else ""
            found += [
                Column(f"difference{name}", f"difference{after}", "interval"),
                Column(f"ratio{name}", f"ratio{after}", "limits"), Column(f"p{name}", f"p (Holm){after}", "p"),
            ]  # fmt: skip
    headline = fields.results.headline
    null = f"null, NFE {headline}" if headline and query.metric == fields.results.metric else "null"
    return [
        *found, Column("n", "n (seeds)"), Column("configurations", "configurations", "count"),
        Column("floor", "floor", "number"), Column("null", null, "number"),
        Column("evaluations", "training evaluations", "count"), Column("seconds", "seconds a run", "duration"),
        Column("failed", "failed runs", "count"),
    ]  # fmt: skip


def _name(column: Key) -> str:
    return "".join(f"_{level}" for level in column)


def _ordered(fields: Fields, names: Sequence[str], keys: Sequence[Key]) -> list[Key]:
    orders = [
        {level: rank for rank, level in enumerate(fields.order(name, sorted({key[place] for key in keys})))}
        for place, name in enumerate(names)
    ]
    return sorted(
        set(keys), key=lambda key: tuple(order[level] for order, level in zip(orders, key, strict=True))
    )  # fmt: skip


def _interval(cell: Cell, bootstrap: bool) -> Interval:
    values = list(cell.by_seed.values())
    return bootstrap_interval(values) if bootstrap and len(values) >= BOOTSTRAP_MINIMUM else mean_interval(values)


def _baseline(fields: Fields, query: Query, text: str, cells: _Cells) -> Baseline:
    """`path=level` (several by commas), or the level of a row or column alone."""
    levels: dict[str, dict[str, None]] = {name: {} for name in query.fields}
    for row, column in cells:
        for name, level in zip(query.fields, (*row, *column), strict=True):
            levels[name][level] = None
    found = {}
    for part in [text] if any(text in held for held in levels.values()) else text.split(","):
        name, _, level = part.strip().rpartition("=")
        if not name:
            name = next((field for field, held in levels.items() if level in held), "")
            if not name:
                raise unknown("row or column", level, [known for held in levels.values() for known in held])
        name = fields.resolve(name)
        if name not in levels:
            raise InputError(f"the baseline's {name} is neither among the rows nor among the columns of the table")
        if level not in levels[name]:
            raise unknown(f"level of {name}", level, levels[name])
        found[name] = level
    return Baseline(found)


def _compare(query: Query, cells: _Cells, baseline: Baseline) -> dict[tuple[Key, Key], tuple[PairedDifference, float]]:
    """Every cell with its reference, paired by seed; p values corrected over the whole table."""
    pairs = []
    for (row, column), cell in cells.items():
        reference = baseline.of(query, row, column)
        if reference != (row, column) and reference in cells:
            pairs.append(((row, column), paired_difference(cell.by_seed, cells[reference].by_seed)))
    corrected = holm([pair.p_value for _, pair in pairs])
    return {place: (pair, p) for (place, pair), p in zip(pairs, corrected, strict=True)}


def _mark_best(table: Table, query: Query, cells: _Cells, rows: Sequence[Key], columns: Sequence[Key]) -> None:
    """Bold is what is better than every other row of its column, each by its own test, Holm-corrected."""
    sign = -1.0 if query.metric.higher_is_better else 1.0
    for column in columns:
        held = {index: cells[row, column].by_seed for index, row in enumerate(rows) if (row, column) in cells}
        means = {index: sign * float(np.mean(list(values.values()))) for index, values in held.items() if values}
        if len(means) < 2:
            continue
        best = min(means, key=lambda index: means[index])
        others = [compare_seeds(held[best], held[index]).p_value for index in means if index != best]
        if all(p < _LEVEL for p in holm(others)):
            table.bold.add((best, f"value{_name(column)}"))


@dataclass(frozen=True)
class _Levels:
    """What perfect and what nothing score: real against real; of each configuration its null at the headline's NFE."""

    floor: float
    nulls: Mapping[str, float]

    def of(self, held: Mapping[Key, Cell]) -> dict[str, Any]:
        """Floor and null of a row."""
        nulls = [self.nulls[digest] for digest in _digests(held) if digest in self.nulls]
        return {"floor": self.floor, "null": float(np.mean(nulls)) if nulls else None}


def _levels(results: Results, query: Query) -> _Levels:
    metrics = results.collected.select([query.metric.name])
    rows = metric_rows(metrics, query.metric, query.phase, "null")
    rows = rows[(rows["split"].isna() | (rows["split"] == query.split)) & np.isfinite(rows["value"])]
    nulls = {str(digest): float(null) for digest, null in rows.groupby("digest")["value"].mean().items()}
    if query.metric == results.metric and query.phase == "ablation" and query.split == "test":
        own = {setting.digest: results.null(setting) for setting in results.settings}
        nulls |= {digest: null.mean for digest, null in own.items() if null.n}
    return _Levels(floor_of(metrics, query.metric).mean, nulls)


def _digests(held: Mapping[Key, Cell]) -> list[str]:
    return list(dict.fromkeys(digest for cell in held.values() for digest in cell.digests))


def _runs(results: Results, query: Query, held: Mapping[Key, Cell]) -> dict[str, Any]:
    counts, digests = sorted({len(cell.by_seed) for cell in held.values()}), _digests(held)
    runs = [run for digest in digests for run in results.runs_of(digest, query.phase)]
    completed = [run for run in runs if run["status"] == "completed"]
    spent = [evaluations_of(run) for run in completed]
    seconds = [spent for spent in map(seconds_of, completed) if spent is not None]
    return {
        "n": "0" if not counts else str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
        "configurations": max((len(cell.digests) for cell in held.values()), default=0),
        "evaluations": float(np.mean(spent)) if any(spent) else None,
        "seconds": float(np.mean(seconds)) if seconds else None,
        "failed": sum(run["status"] == "failed" for run in runs),
    }


def _title(fields: Fields, query: Query) -> str:
    rows = " × ".join(fields.label(name) for name in query.rows)
    columns = " × ".join(fields.label(name) for name in query.columns)
    return f"{query.metric.label} by {rows}" + (f" and {columns}" if columns else "")


def _caption(results: Results, query: Query, cells: _Cells, baseline: Baseline | None, comparisons: int,
             bootstrap: bool) -> str:  # fmt: skip
    better = "higher" if query.metric.higher_is_better else "lower"
    seeds = sorted({seed for cell in cells.values() for seed in cell.by_seed})
    mixed = max(len(cell.values) for cell in cells.values())
    running = sum(run["status"] == "running" for run in results.runs[query.phase])
    text = [
        f"{query.metric.label}, {query.phase}, {query.split} split: mean ± half of the 95 % interval over seeds (t"
        + (f"; percentile bootstrap from n ≥ {BOOTSTRAP_MINIMUM})" if bootstrap else ")")
        + f"; {better} is better. Seeds {', '.join(str(seed) for seed in seeds) or 'none'}.",
        _sampled(results, query),
        f"Where a cell holds several configurations (up to {mixed}), a seed's value is their mean, over the seeds that "
        f"all of them have." if mixed > 1 else "",
        f"Difference and ratio are paired by seed against {baseline.label}; p is the paired t test on log ratios, "
        f"Holm-corrected over {formats.plural(comparisons, 'comparison')}." if baseline else "",
        "Bold: better than every other row of its column (paired by seed where seeds are shared, Welch otherwise; "
        "Holm; 5 %).",
        "One seed: no interval, and nothing can be told from chance." if len(seeds) == 1 else "",
        "The search's scores are optimistic: one seed a configuration, the best of many." if query.phase == "search"
        else "",
        "On validation samplers were chosen: its scores are optimistic." if query.split == "validation" else "",
        f"{formats.plural(running, 'run')} not finished yet." if running else "",
    ]  # fmt: skip
    return " ".join(part for part in text if part)


def _sampled(results: Results, query: Query) -> str:
    chosen = not any(name in query.fields or name in query.where for name in MEASURED[1:3])
    at = "" if "nfe" in query.fields else f"at NFE {', '.join(query.where.get('nfe', (str(results.headline),)))}"
    by = "sampler and time grid as validation chose them for each configuration and NFE" if chosen else ""
    if query.metric != results.metric and chosen:
        by += f" on {results.metric.label}"
    text = ", ".join(part for part in (at, by) if part)
    return f"{text[0].upper()}{text[1:]}." if text and results.headline else ""


def _nothing(results: Results, query: Query) -> str:
    if not results.runs[query.phase]:
        return f"{results.collected.folder}: no run of the {query.phase} has been recorded"
    if not any(run["status"] == "completed" for run in results.runs[query.phase]):
        return f"{results.collected.folder}: no run of the {query.phase} is completed yet"
    conditions = ", ".join(f"{name} = {' or '.join(levels)}" for name, levels in query.where.items())
    return (
        f"{results.collected.folder}: {query.metric.label} was not measured in the {query.phase} on the {query.split} "
        f"split{f' with {conditions}' if conditions else ''}"
    )
