"""Crossed factors as heat maps: of three factors one a level of the third, in the same colours."""

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import formats
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.members import shared
from analysis.results import Results
from analysis.tables import context
from analysis.tables_grid import Matrix, cell_budget, cell_interval, cell_text, logarithm, matrices, where_measured

_ROW, _TITLE, _ENDS = 58, 46, 116  # pixels: of a row of cells, of a heat map's title, of what is above and below


def grid_panel(results: Results) -> Panel:
    """The crossed factors as heat maps."""
    found = matrices(results)
    cells = results.grid_settings()
    if not any(cell_interval(results, cell).n for cell in cells):
        return Panel(
            "heat_map", "Two factors crossed", "The study crosses no two factors, or none of their runs is completed."
        )
    several = len(found) > 1
    heights = [len(matrix.rows) for matrix in found]
    height = _ENDS + (_ROW if several else 90) * sum(heights) + (_TITLE * len(found) if several else 0)
    figure = make_subplots(
        len(found), 1, shared_xaxes=True, row_heights=heights, vertical_spacing=_TITLE / height if several else 0,
        subplot_titles=[matrix.facet for matrix in found] if several else None,
    )  # fmt: skip
    logs = [value for cell in cells if (value := logarithm(cell_interval(results, cell))) is not None]
    for row, matrix in enumerate(found, 1):
        figure.add_trace(_heat_map(results, matrix, logs, row == 1, 12 if len(matrix.columns) > 4 else 14), row, 1)
    style.finish(figure, height, legend=False, titled=several)
    first, second, *third = (results.design.label(path) for path in results.design.grid)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_xaxes(title_text=second, row=len(found), col=1)
    figure.update_yaxes(type="category", title_text=first, showgrid=False)
    caption = " ".join(part for part in (
        f"{results.metric.label} {where_measured(results)}, test split, mean ± half of the 95 % t interval; bright is "
        f"good.", shared(results.design, cells), context(results, cells),
    ) if part)  # fmt: skip
    return Panel("heat_map", " × ".join((first, second, *third)), caption, figure)


def _heat_map(results: Results, matrix: Matrix, logs: Sequence[float], scale: bool, size: int) -> go.Heatmap:
    """One matrix; `logs` are those of all, which the colours span."""
    shown: list[list[Any]] = []
    for row in matrix.rows:
        line = []
        for column in matrix.columns:
            cell = matrix.cells.get((row, column))
            line.append(None if cell is None else (cell, cell_interval(results, cell)))
        shown.append(line)
    ticks = [min(logs) + (max(logs) - min(logs)) * part / 4 for part in range(5)] if logs else []
    return go.Heatmap(
        z=[[None if item is None else logarithm(item[1]) for item in line] for line in shown],
        x=matrix.columns, y=matrix.rows,
        text=[["no run" if item is None else cell_text(results, *item) for item in line] for line in shown],
        texttemplate="%{text}",
        customdata=[
            [
                style.point() if item is None
                else style.point(item[0].digest, cell_budget(results, item[0]), y=item[1]) for item in line
            ]
            for line in shown
        ],
        meta={"phase": "ablation", **results.place}, colorscale=style.SEQUENTIAL, reversescale=True, xgap=3, ygap=3,
        zmin=min(logs, default=None), zmax=max(logs, default=None), hoverinfo="text", textfont={"size": size},
        showscale=scale,
        colorbar={"title": {"text": results.metric.short, "side": "right"}, "tickvals": ticks,
                  "ticktext": [formats.number(10**tick) for tick in ticks], "thickness": 14, "outlinewidth": 0},
    )  # fmt: skip
