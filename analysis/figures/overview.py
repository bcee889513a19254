"""Methods × data sets at a glance: a dot and interval for each, with the floor and the null of the data set."""

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import formats
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.overview import Method, methods, null_of, seeds_sentence
from analysis.results import Results
from analysis.statistics import Interval

_ACROSS = 4  # data sets side by side


def overview_panel(parts: Sequence[Results]) -> Panel:
    """The primary metric of every method on every data set, each data set on its own axis."""
    title = "Methods × data sets"
    rows = methods(parts)
    rows = [row for row in rows if any(_interval(results, row) for results in parts)]
    if not rows:
        return Panel("overview", title, "No run of the ablation is completed with a score on the test split.")
    across = min(_ACROSS, len(parts))
    down = math.ceil(len(parts) / across)
    figure = make_subplots(
        down, across, shared_yaxes=True, horizontal_spacing=0.025, vertical_spacing=0.16 / down,
        subplot_titles=[f"{formats.level(results.dataset)}<br>{results.metric.short}" for results in parts],
    )  # fmt: skip
    for position, results in enumerate(parts):
        _fill(figure, results, rows, position // across + 1, position % across + 1)
    style.finish(figure, 90 + down * (70 + 26 * len(rows)), legend=False, titled=True)
    figure.update_layout(margin={"t": 60})
    names = [row.name for row in rows]
    figure.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=names, showgrid=True)
    caption = (
        f"Each data set's own metric on the test split, lower (left) is better; {_budgets(parts)}. Dot and bar: mean "
        f"and 95 % t interval over seeds; dashed: floor; dotted: null; axes of different data sets do not compare. "
        f"{seeds_sentence(parts)}"
    )
    return Panel("overview", title, caption, figure)


def _fill(figure: go.Figure, results: Results, rows: Sequence[Method], line: int, column: int) -> None:
    place = {"row": line, "col": column}
    shown = []
    for index, row in enumerate(rows):
        interval = _interval(results, row)
        if interval is None:
            continue
        shown += [interval.mean, max(interval.low, 0.1 * interval.mean), interval.high]
        note = row.notes.get(results.dataset)
        figure.add_scatter(
            x=[interval.mean], y=[row.name], error_x=style.error_bars([interval]), mode="markers", name=row.name,
            marker=style.marker(index, 10), meta={**row.facets, **results.place}, hoverinfo="text",
            hovertext=f"{formats.level(results.dataset)}, {row.name}<br>{formats.with_n(interval)}"
            + (f"<br>{note}" if note else ""), **place,
            customdata=[style.point(row.settings[results.dataset].digest, results.headline, x=interval)],
        )  # fmt: skip
    for reference, dash in ((results.floor, "dash"), (null_of(results), "dot")):
        if reference.n:
            shown.append(reference.mean)
            line_style = {"color": style.FLOOR_COLOUR, "dash": dash, "width": 1.5}
            figure.add_vline(x=reference.mean, line=line_style, **place)
    style.value_axis(figure, "", shown, axis="x", **place)
    figure.update_xaxes(range=_range(shown), **place)


def _range(shown: Sequence[float]) -> list[float] | None:
    """Room around everything, lines of floor and null included, which plotly would put on the edge."""
    finite = [value for value in shown if math.isfinite(value)]
    if not style.positive(finite):
        return None
    low, high = math.log10(min(finite)), math.log10(max(finite))
    room = 0.06 * max(high - low, 0.1)
    return [low - room, high + room]


def _interval(results: Results, row: Method) -> Interval | None:
    setting = row.settings.get(results.dataset)
    interval = results.interval(setting) if setting else None
    return interval if interval is not None and interval.n else None


def _budgets(parts: Sequence[Results]) -> str:
    budgets = sorted({results.headline for results in parts})
    named = ", ".join(str(budget) for budget in budgets)
    return f"at NFE {named}" if len(budgets) == 1 else f"at the NFE in the table's heads ({named})"
