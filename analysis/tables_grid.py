"""Crossed factors as matrices: rows the first, columns the second, of three one matrix a level of the third."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis import formats
from analysis.design import Setting
from analysis.members import by_level, shared
from analysis.results import Results
from analysis.statistics import Interval, mean_interval
from analysis.tables import Column, Table, at, budget_label, context

STEPS = "method.num_steps"


@dataclass(frozen=True)
class Matrix:
    """One matrix of the grid.

    Attributes:
        key: the table's.
        facet: the third factor and its level, empty of two factors.
        rows: levels of the first factor.
        columns: levels of the second.
        cells: {(row, column): the setting in its place}.
    """

    key: str
    facet: str
    rows: list[str]
    columns: list[str]
    cells: dict[tuple[str, str], Setting]


def matrices(results: Results) -> list[Matrix]:
    """The grid's matrices; none without crossed factors."""
    design, cells = results.design, results.grid_settings()
    if not cells:
        return []
    if len(design.grid) == 2:
        return [_matrix(results, "grid_matrix", "", cells)]
    path, found = design.grid[2], []
    for level in _levels(results, cells, path):
        own = [cell for cell in cells if formats.level(cell.level(path)) == level]
        slug = re.sub(r"\W+", "_", level).strip("_").lower()
        found.append(_matrix(results, f"grid_matrix_{slug}", f"{design.label(path)} = {level}", own))
    return found


def _matrix(results: Results, key: str, facet: str, cells: Sequence[Setting]) -> Matrix:
    """Of some of the grid's cells, with the rows and columns of all of it."""
    first, second, *_ = results.design.grid
    every = results.grid_settings()
    held = {(formats.level(cell.level(first)), formats.level(cell.level(second))): cell for cell in cells}
    return Matrix(key, facet, _levels(results, every, first), _levels(results, every, second), held)


def _levels(results: Results, cells: Sequence[Setting], path: str) -> list[str]:
    ordered = by_level(results.design, cells, path)
    return list(dict.fromkeys(formats.level(cell.level(path)) for cell in ordered))


def grid_matrices(results: Results) -> list[Table]:
    """The matrices as tables of the metric."""
    return [_table(results, matrix) for matrix in matrices(results)]


def _table(results: Results, matrix: Matrix) -> Table:
    first, second, *_ = results.design.grid
    name, label = (results.design.label(path) for path in (first, second))
    nfe = {} if own_nfe(results) else at(results.headline)
    place = {**nfe, "phase": "ablation", **results.place}
    columns = [
        Column("level", name),
        *(Column(f"level_{level}", level, "interval", {**nfe, label: level}) for level in matrix.columns),
    ]
    where = f", {matrix.facet}" if matrix.facet else ""
    title = f"{results.metric.short} {where_measured(results)} by {name} and {label}{where}"
    settings = list(matrix.cells.values())
    caption = " ".join(part for part in (context(results, settings), shared(results.design, settings)) if part)
    table = Table(matrix.key, title, caption, columns)
    for row in matrix.rows:
        values: dict[str, Any] = {"level": row}
        for column in matrix.columns:
            if (row, column) in matrix.cells:
                values[f"level_{column}"] = cell_interval(results, matrix.cells[row, column])
        table.add(values, {**place, name: row})
    return table


def own_nfe(results: Results) -> bool:
    """Whether the number of steps is crossed, so that each cell has an NFE of its own."""
    return STEPS in results.design.grid


def where_measured(results: Results) -> str:
    """ "at NFE 10", or that each cell stands at its own."""
    return "at its own NFE" if own_nfe(results) else budget_label(results.headline)


def cell_budget(results: Results, cell: Setting) -> int:
    """The NFE that a cell of the grid is shown at."""
    steps = cell.level(STEPS)
    return int(steps) if own_nfe(results) and isinstance(steps, int) else results.headline


def cell_interval(results: Results, cell: Setting) -> Interval:
    """A cell's mean on the test split; n = 0 where it has none."""
    budget = cell_budget(results, cell)
    if budget in results.budgets:
        return results.interval(cell, budget)
    score = results.scores_with([budget]).get(cell.digest, budget)
    return score.interval if score is not None else mean_interval([])


def cell_text(results: Results, cell: Setting, interval: Interval) -> str:
    """What a heat map writes into a cell: the absolute size where its level is a multiple, the mean, n."""
    multiple = next((factor for factor in results.design.factors if factor.multiple_of), None)
    size = ""
    if multiple is not None and multiple.path in results.design.grid:
        absolute = cell.leaves.get(multiple.path)
        size = f"G = {formats.level(absolute)}<br>" if absolute is not None else ""
    return f"{size}{formats.interval(interval)}<br>n = {interval.n}" if interval.n else f"{size}no run"


def logarithm(interval: Interval) -> float | None:
    """What a heat map is coloured by, None of what it cannot show."""
    return math.log10(interval.mean) if interval.n and interval.mean > 0 else None
