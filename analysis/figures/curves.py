"""Lines of quality against NFE: a mean over seeds with its band, and the floor."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from analysis import formats
from analysis.figures import style
from analysis.quality import Score
from analysis.results import Results
from analysis.statistics import Interval

CLIPPED = " Where a band would reach below zero it is cut at a tenth of the mean, since the axis is logarithmic."


@dataclass
class Line:
    """A line: its name, what filters look at, and its points by NFE budget.

    Attributes:
        scores: (NFE budget, digest of the setting, its score there).
        notes: {NFE budget: what else the reader must know of a point}.
    """

    name: str
    facets: Mapping[str, str]
    scores: list[tuple[int, str, Score]] = field(default_factory=list)
    notes: dict[int, str] = field(default_factory=dict)


def distinct(scores: Sequence[tuple[int, str, Score]]) -> list[tuple[int, str, Score]]:
    """Without the budgets at which nothing but an earlier budget's measurement is within reach."""
    found: dict[tuple[str, int, object], tuple[int, str, Score]] = {}
    for n, digest, score in scores:
        found.setdefault((digest, score.counted, score.sampler), (n, digest, score))
    return list(found.values())


def best_at_each(scores: Sequence[tuple[int, str, Score]]) -> list[tuple[int, str, Score]]:
    """Of several scores at one number of calls that of the least mean on validation, by calls."""
    found: dict[int, tuple[int, str, Score]] = {}
    for item in sorted(scores, key=lambda item: (item[2].counted, item[2].validation_mean)):
        found.setdefault(item[2].counted, (item[2].counted, *item[1:]))
    return list(found.values())


def add_markers(figure: go.Figure, lines: Sequence[Line], first: int, budgets: Sequence[int]) -> None:
    """Adds a marker with its name for each line of a single point: beside it where there is room, else in the legend.

    Args:
        first: index of the first, for its colour.
        budgets: the NFE of the axis.
    """
    placed = []
    for line in lines:
        placed += [(line, *item) for item in distinct(line.scores)[:1] if item[2].interval.n]
    placed.sort(key=lambda item: (item[1], item[3].interval.mean))
    counts = Counter(n for _, n, *_ in placed)
    for rank, (line, n, digest, score) in enumerate(placed):
        interval, crowded = score.interval, counts[n] > 2
        side = "left" if n * n > min(budgets) * max(budgets) else "right"
        figure.add_scatter(
            x=[n], y=[interval.mean], mode="markers" if crowded else "markers+text", name=line.name,
            text=[line.name],
            textposition=f"{'top' if rank % 2 else 'bottom'} {side}", textfont={"size": 11},
            marker=style.marker(first + rank, 9), showlegend=crowded, meta=dict(line.facets), hoverinfo="text",
            error_y=style.error_bars([interval]), customdata=[style.point(digest, n, y=interval)],
            hovertext=[f"{line.name}<br>NFE ≤ {n} (counted {score.counted})<br>{formats.with_n(interval)}"],
        )  # fmt: skip


def add_curve(figure: go.Figure, line: Line, index: int) -> bool:
    """Adds a line and its band; says whether the band had to be cut.

    Args:
        index: of the line, for its colour.
    """
    points = [(n, digest, score, score.interval) for n, digest, score in distinct(line.scores) if score.interval.n]
    limits = [(n, interval, style.point(digest, n, y=interval)) for n, digest, _, interval in points]
    clipped = add_band(figure, line.name, line.facets, limits, index)
    hover = [
        f"{line.name}<br>NFE ≤ {n} (counted {score.counted}, {score.num_steps} steps)<br>{formats.interval(interval)}, "
        f"n = {interval.n}<br>{' / '.join(formats.level(part) for part in score.sampler if part)}"
        + (f"<br>{line.notes[n]}" if n in line.notes else "")
        for n, _, score, interval in points
    ]  # fmt: skip
    figure.add_scatter(
        x=[n for n, *_ in points], y=[interval.mean for *_, interval in points], mode="lines+markers", name=line.name,
        legendgroup=line.name, line=style.line(index), marker=style.marker(index, 8), hovertext=hover,
        hoverinfo="text", meta=dict(line.facets), customdata=[known for *_, known in limits],
    )  # fmt: skip
    return clipped


def add_band(figure: go.Figure, name: str, facets: Mapping[str, str],
             limits: Sequence[tuple[float, Interval, Mapping[str, Any]]], index: int) -> bool:  # fmt: skip
    """Adds the band of some intervals; says whether it had to be cut, a tenth of the mean being the least.

    Args:
        limits: (x, interval, what the page knows of the point).
    """
    banded = [item for item in limits if not math.isnan(item[1].low)]
    if not banded:
        return False
    across, low = [x for x, *_ in banded], [max(interval.low, 0.1 * interval.mean) for _, interval, _ in banded]
    known = [{**one, "side": "high"} for *_, one in banded]
    known += [{**one, "side": "low"} for *_, one in banded[::-1]]
    figure.add_scatter(
        x=across + across[::-1], y=[interval.high for _, interval, _ in banded] + low[::-1], fill="toself",
        mode="lines", fillcolor=style.faded(index), line={"width": 0}, hoverinfo="skip", showlegend=False, name=name,
        legendgroup=name, meta=dict(facets), customdata=known,
    )  # fmt: skip
    return any(interval.low < 0.1 * interval.mean for _, interval, _ in banded)


def add_floor(figure: go.Figure, results: Results) -> None:
    """Adds the floor as a dashed line, where one was recorded."""
    if not results.floor.n or not results.budgets:
        return
    figure.add_scatter(
        x=[min(results.budgets), max(results.budgets)], y=[results.floor.mean] * 2, mode="lines",
        name="floor (real against real)",
        line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5}, hovertemplate="floor %{y:.3g}<extra></extra>",
    )  # fmt: skip
