"""Figures of effects and importances, drawn from their tables."""

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from analysis import formats
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.results import Results
from analysis.statistics import Interval
from analysis.tables import Table, at

_LISTED = 60  # rows that a figure can hold


def effects_figure(results: Results, table: Table) -> Panel:
    """Each level's effect with its interval, one colour a term."""
    title = "Effects of the factors"
    rows = table.rows[:_LISTED]
    if not rows:
        return Panel("effects_intervals", title, table.caption)
    figure = go.Figure()
    terms = list(dict.fromkeys(str(row["term"]) for row in rows))
    for index, term in enumerate(terms):
        own = [row for row in rows if row["term"] == term]
        intervals: list[Interval] = [row["effect"] for row in own]
        names = [f"{term} = {row['level']}" for row in own]
        figure.add_scatter(
            x=[interval.mean for interval in intervals], y=names, mode="markers", name=term,
            error_x=style.error_bars(intervals), marker=style.marker(index, 9), hoverinfo="text",
            meta={"phase": "ablation", **at(results.headline), **results.place},
            hovertext=[
                f"{name}: {formats.limits(interval)}<br>p {formats.p_value(row['p'])} (Holm within the term)"
                for name, interval, row in zip(names, intervals, own, strict=True)
            ],
        )  # fmt: skip
    ratios = min(row["effect"].mean for row in rows) > 0
    line = {"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5}
    figure.add_vline(x=1 if ratios else 0, line=line)
    style.finish(figure, 110 + 24 * len(rows), legend=len(terms) > 1)
    label = f"factor on {results.metric.label} (1: no effect)" if ratios else f"difference in {results.metric.label}"
    ends = [end for row in rows for end in (row["effect"].mean, row["effect"].low, row["effect"].high)]
    style.value_axis(figure, label, ends, axis="x")
    figure.update_yaxes(autorange="reversed", type="category")
    left_out = len(table.rows) - len(rows)
    more = f" The table has {left_out} further rows." if left_out else ""
    return Panel("effects_intervals", title, f"The table of effects as a figure, dashed: no effect.{more} "
                 f"{table.caption}", figure)  # fmt: skip


def importances_figure(results: Results, table: Table) -> Panel:
    """Each parameter's share, one bar an evaluator."""
    title = "Parameter importance in the search"
    if not table.rows:
        completed = sum(run["status"] == "completed" for run in results.runs["search"])
        text = (
            f"Parameter importance needs at least 4 completed runs with a score and a parameter that varies among "
            f"them; the search has {formats.plural(completed, 'completed run')}."
        )
        return Panel("importance", title, text)
    figure = go.Figure()
    most = max(row["n"] for row in table.rows)
    parameters = list(dict.fromkeys(_parameter(row, most) for row in table.rows))
    for index, evaluator in enumerate(dict.fromkeys(str(row["evaluator"]) for row in table.rows)):
        own = [row for row in table.rows if row["evaluator"] == evaluator]
        shares: list[Interval] = [row["share"] for row in own]
        figure.add_bar(
            x=[share.mean for share in shares], y=[_parameter(row, most) for row in own], orientation="h",
            name=evaluator, error_x=style.error_bars(shares, "linear"), marker={"color": style.colour(index)},
            hoverinfo="text", hovertext=[
                f"{row['parameter']}, {evaluator}: {formats.limits(row['share'])}<br>{row['meaning']}" for row in own
            ],
            meta={"phase": "search", **at(results.headline), **results.place},
        )  # fmt: skip
    style.finish(figure, 120 + 52 * len(parameters))
    figure.update_layout(barmode="group")
    figure.update_xaxes(title_text="share of importance", range=[0, 1.02])
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    return Panel("importance", title, table.caption, figure)


def _parameter(row: Mapping[str, Any], most: int) -> str:
    """A parameter's name, with the number of its runs where it is active in some alone."""
    return str(row["parameter"]) if row["n"] == most else f"{row['parameter']} ({row['n']} runs)"
