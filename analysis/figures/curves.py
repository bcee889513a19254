"""Lines of quality against NFE: a mean over seeds with its band, and the floor."""

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from analysis import formats
from analysis.figures import style
from analysis.quality import Score
from analysis.results import Results

CLIPPED = " Where a band would reach below zero it is cut at a tenth of the mean, since the axis is logarithmic."


def add_curve(figure: go.Figure, scores: Sequence[tuple[int, Score]], index: int, name: str, facets: Mapping[str, str],
              notes: Mapping[int, str] | None = None) -> bool:  # fmt: skip
    """Adds a line and its band; says whether the band had to be cut.

    Args:
        scores: (NFE budget, score).
        index: of the line, for its colour.
        name: in the legend.
        facets: what filters look at.
        notes: {NFE budget: what else the reader must know of a point}.
    """
    points = [(n, score.interval, score) for n, score in scores if score.interval.n]
    banded = [(n, interval) for n, interval, _ in points if not math.isnan(interval.low)]
    low = [max(interval.low, 0.1 * interval.mean) for _, interval in banded]
    if banded:
        across = [n for n, _ in banded]
        figure.add_scatter(
            x=across + across[::-1], y=[interval.high for _, interval in banded] + low[::-1], fill="toself",
            mode="lines", fillcolor=style.faded(index), line={"width": 0}, hoverinfo="skip", showlegend=False,
            legendgroup=name, meta=dict(facets),
        )  # fmt: skip
    hover = [
        f"{name}<br>NFE ≤ {n} (counted {score.counted}, {score.num_steps} steps)<br>{formats.interval(interval)}, n = "
        f"{interval.n}<br>{' / '.join(formats.level(part) for part in score.sampler if part)}"
        + (f"<br>{notes[n]}" if notes and n in notes else "")
        for n, interval, score in points
    ]  # fmt: skip
    figure.add_scatter(
        x=[n for n, _, _ in points], y=[interval.mean for _, interval, _ in points], mode="lines+markers", name=name,
        legendgroup=name, line=style.line(index), marker=style.marker(index, 8), hovertext=hover, hoverinfo="text",
        meta=dict(facets),
    )  # fmt: skip
    return any(interval.low < 0.1 * interval.mean for _, interval in banded)


def add_floor(figure: go.Figure, results: Results) -> None:
    """Adds the floor as a dashed line, where one was recorded."""
    if not results.floor.n or not results.budgets:
        return
    figure.add_scatter(
        x=[min(results.budgets), max(results.budgets)], y=[results.floor.mean] * 2, mode="lines",
        name="floor (real against real)",
        line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5}, hovertemplate="floor %{y:.3g}<extra></extra>",
    )  # fmt: skip
