"""Where matplotlib puts the subplots of a plotly figure, and how each axis counts, is ticked and is named."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    MultipleLocator,
    NullLocator,
)

from analysis.static.colours import plain

_LABEL = 34  # characters of a category's name in a line
_NARROW = 12  # the same where labels run into one another
_LETTER = 4.2  # points that a letter of a tick's label is wide
_LINE = 0.115  # inches between lines of a tick's label
_GRID = "#dfe3e8"


@dataclass
class Axis:
    """One axis of plotly: its entry in the layout, and the order of its categories where it has some."""

    layout: Any
    categories: list[str] | None = None

    @property
    def log(self) -> bool:
        """Whether it is logarithmic."""
        return bool(self.layout.type == "log")

    def numbers(self, values: Iterable[Any] | None) -> np.ndarray:
        """Values as numbers: categories by their place, what is absent as NaN."""
        if values is None:
            return np.array([])
        if self.categories is not None:
            places = {name: place for place, name in enumerate(self.categories)}
            return np.array([places.get(str(value), math.nan) for value in values], dtype=float)
        return np.array([math.nan if value is None else float(value) for value in values], dtype=float)


@dataclass
class Place:
    """A subplot: where its traces are drawn, and its two axes."""

    axes: Axes
    x: Axis
    y: Axis
    x_name: str
    y_name: str
    stacked: dict[float, float] = field(default_factory=dict)


def arrange(figure: go.Figure, canvas: Figure, traces: Sequence[Any]) -> dict[tuple[str, str], Place]:
    """A subplot for each pair of axes that has a trace, in a grid that follows plotly's domains."""
    pairs = list(dict.fromkeys((trace.xaxis or "x", trace.yaxis or "y") for trace in traces))
    axes = {name: _axis(figure, name) for pair in pairs for name in pair}
    for name in list(axes):
        _categorise(figure, name, axes, traces)
    domains = {pair: _domain(figure, axes, pair) for pair in pairs}
    grid = _Grid.of(list(domains.values()))
    cells = canvas.add_gridspec(
        len(grid.rows), len(grid.columns), width_ratios=[end - start for start, end in grid.columns],
        height_ratios=[end - start for start, end in reversed(grid.rows)],
    )  # fmt: skip
    found: dict[tuple[str, str], Place] = {}
    drawn: dict[tuple[float, ...], Axes] = {}
    for pair in sorted(pairs, key=lambda pair: bool(axes[pair[1]].layout.overlaying)):
        domain = domains[pair]
        if domain in drawn and axes[pair[1]].layout.overlaying:
            subplot = drawn[domain].twinx()
        else:
            rows, columns = grid.span(domain)
            subplot = drawn[domain] = canvas.add_subplot(cells[rows, columns])
        found[pair] = Place(subplot, axes[pair[0]], axes[pair[1]], *pair)
    _share(found, axes)
    return found


@dataclass(frozen=True)
class _Grid:
    """Columns from left to right and rows from bottom to top, as (start, end) in plotly's units."""

    columns: list[tuple[float, float]]
    rows: list[tuple[float, float]]

    @staticmethod
    def of(domains: Sequence[tuple[float, ...]]) -> "_Grid":
        return _Grid(_intervals([domain[:2] for domain in domains]), _intervals([domain[2:] for domain in domains]))

    def span(self, domain: tuple[float, ...]) -> tuple[slice, slice]:
        left, right = _covered(self.columns, *domain[:2])
        low, high = _covered(self.rows, *domain[2:])
        return slice(len(self.rows) - high, len(self.rows) - low), slice(left, right)


def _intervals(found: Sequence[tuple[float, ...]]) -> list[tuple[float, float]]:
    """The shortest of these intervals, none over another."""
    kept: list[tuple[float, float]] = []
    for start, end in sorted({(start, end) for start, end in found}, key=lambda item: item[1] - item[0]):
        if all(end <= other[0] + 1e-9 or start >= other[1] - 1e-9 for other in kept):
            kept.append((start, end))
    return sorted(kept)


def _covered(intervals: Sequence[tuple[float, float]], start: float, end: float) -> tuple[int, int]:
    inside = [place for place, (low, high) in enumerate(intervals) if low < end - 1e-9 and high > start + 1e-9]
    return inside[0], inside[-1] + 1


def _axis(figure: go.Figure, name: str) -> Axis:
    return Axis(figure.layout[f"{name[0]}axis{name[1:]}"])


def _domain(figure: go.Figure, axes: dict[str, Axis], pair: tuple[str, str]) -> tuple[float, ...]:
    layouts = [axes[name].layout for name in pair]
    layouts[1] = _axis(figure, layouts[1].overlaying).layout if layouts[1].overlaying else layouts[1]
    return tuple(round(float(edge), 9) for layout in layouts for edge in layout.domain or (0.0, 1.0))


def _categorise(figure: go.Figure, name: str, axes: dict[str, Axis], traces: Sequence[Any]) -> None:
    """Gives an axis its categories: those that the layout orders, then the others as they come; shared by matches."""
    root = axes[name].layout.matches or name
    family = {other for other, axis in axes.items() if other == root or axis.layout.matches == root} | {name}
    values = [value for trace in traces for value in _along(trace, name[0], family)]
    layouts = [axes[other].layout for other in family]
    declared = any(layout.type == "category" for layout in layouts)
    if not declared and not any(isinstance(value, str) and not _numeric(value) for value in values):
        return
    ordered = [str(value) for layout in layouts for value in layout.categoryarray or ()]
    axes[name].categories = list(dict.fromkeys([*ordered, *(str(value) for value in values if value is not None)]))


def _along(trace: Any, side: str, family: set[str]) -> list[Any]:
    held = trace[side] if side in trace and (trace[f"{side}axis"] or side) in family else None
    return [] if held is None else list(held)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _share(places: dict[tuple[str, str], Place], axes: dict[str, Axis]) -> None:
    """Axes that match show the same range."""
    first: dict[str, Axes] = {}
    for place in places.values():
        for name in (place.x_name, place.y_name):
            root = axes[name].layout.matches or name
            if root not in first:
                first[root] = place.axes
            elif first[root] is not place.axes:
                join = place.axes.sharex if name[0] == "x" else place.axes.sharey
                join(first[root])


def inches(place: Place) -> float:
    """About how wide a subplot is, its tick labels left out."""
    canvas, spec = place.axes.get_figure(root=True), place.axes.get_subplotspec()
    assert canvas is not None and spec is not None
    across: list[float] = list(spec.get_gridspec().get_width_ratios())  # type: ignore[arg-type]
    share = sum(across[spec.colspan.start : spec.colspan.stop]) / sum(across)
    labels = 0.12 if place.y.layout.showticklabels is False else 0.45
    return max(0.2, float(canvas.get_figwidth() * share) - labels)


def finish(place: Place) -> None:
    """Scales, ranges, ticks, names and grid, after everything is drawn."""
    axes = place.axes
    for side, axis in (("x", place.x), ("y", place.y)):
        if axis.log:
            (axes.set_xscale if side == "x" else axes.set_yscale)("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    width = inches(place)
    for side, axis in (("x", place.x), ("y", place.y)):
        _limits(axes, side, axis)
        ticks(axes, side, axis, width)
        if axis.layout.visible is False:
            (axes.xaxis if side == "x" else axes.yaxis).set_visible(False)
    axes.set_xlabel(folded(place.x.layout.title.text, max(18, int(width * 15))))
    axes.set_ylabel(folded(place.y.layout.title.text, 40))
    if place.x.layout.scaleanchor or place.y.layout.scaleanchor:
        axes.set_aspect("equal", adjustable="box")
    if place.y.layout.side == "right":
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")


def height_of_names(place: Place) -> float:
    """Inches that the names of a subplot's categories need below one another."""
    names = place.y.categories or []
    return len(names) * (0.04 + _LINE * max((len(folded(name, _LABEL).split("\n")) for name in names), default=0))


def folded(text: Any, width: int) -> str:
    """Text in lines of at most so many characters."""
    lines = [textwrap.wrap(line, width, break_long_words=False) or [""] for line in plain(text).splitlines()]
    return "\n".join(part for parts in lines for part in parts)


def _limits(axes: Axes, side: str, axis: Axis) -> None:
    get, put = (axes.get_xlim, axes.set_xlim) if side == "x" else (axes.get_ylim, axes.set_ylim)
    low, high = sorted(get())
    if axis.layout.range is not None:
        edges = [None if edge is None else float(edge) for edge in axis.layout.range]
        put(*(10.0**edge if axis.log and edge is not None else edge for edge in edges))
        return
    if axis.layout.rangemode in ("tozero", "nonnegative") and not axis.log and not _has_negative(axes, side):
        low = 0.0
    if axis.categories is not None:
        low, high = -0.5, len(axis.categories) - 0.5
    put(*((high, low) if axis.layout.autorange == "reversed" else (low, high)))


def _has_negative(axes: Axes, side: str) -> bool:
    edges = axes.dataLim.intervalx if side == "x" else axes.dataLim.intervaly
    return bool(min(edges) < 0)


def ticks(axes: Axes, side: str, axis: Axis, width: float) -> None:
    """Plotly's own ticks where it names them; across, those whose labels have room."""
    target, layout = (axes.xaxis if side == "x" else axes.yaxis), axis.layout
    if layout.showgrid is not False:
        axes.grid(axis="x" if side == "x" else "y", color=_GRID, linewidth=0.6)
    values, texts = _named(axis)
    if values is not None:
        if side == "x" and axis.categories is None:
            values, texts = _with_room(axes, axis, values, texts, width)
        target.set_major_locator(FixedLocator(values.tolist()))
        target.set_major_formatter(FixedFormatter(texts))
        target.set_minor_locator(NullLocator())
        if side == "x" and axis.categories is not None and _crowded(texts, width):
            axes.tick_params(axis="x", rotation=90 if len(texts) > 4 * width else 30)
    elif layout.dtick is not None and not axis.log:
        target.set_major_locator(MultipleLocator(float(layout.dtick)))
    elif not axis.log:
        most = max(2, min(8, int(width / 0.5))) if side == "x" else 6
        target.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10]))
        if max(abs(edge) for edge in target.get_view_interval()) >= 1e5:
            target.set_major_formatter(EngFormatter(sep=""))
    if layout.tickformat and values is None:
        target.set_major_formatter(FuncFormatter(lambda value, _: format(value, layout.tickformat)))
    if layout.showticklabels is False:
        axes.tick_params(axis="x" if side == "x" else "y", labelbottom=False, labelleft=False)
    if layout.tickangle:
        axes.tick_params(axis="x" if side == "x" else "y", rotation=-float(layout.tickangle))


def _named(axis: Axis) -> tuple[np.ndarray | None, list[str]]:
    """The ticks that the layout or the categories name."""
    if axis.layout.tickvals is not None:
        values = axis.numbers(axis.layout.tickvals)
        given = axis.layout.ticktext
        return values, [folded(text, _LABEL) for text in (given if given is not None else [f"{v:g}" for v in values])]
    if axis.categories is not None:
        return np.arange(len(axis.categories), dtype=float), [folded(text, _LABEL) for text in axis.categories]
    return None, []


def _with_room(axes: Axes, axis: Axis, values: np.ndarray, texts: Sequence[str],
               width: float) -> tuple[np.ndarray, list[str]]:  # fmt: skip
    """The ticks in sight whose labels do not run into that of the one before."""
    low, high = sorted(axes.get_xlim())
    scale = np.log10 if axis.log else np.asarray
    inside = sorted((value, text) for value, text in zip(values, texts, strict=True) if low <= value <= high)
    kept: list[tuple[float, str]] = []
    for fold in (_LABEL, _NARROW):
        kept, last = [], -math.inf
        for value, text in inside:
            label = folded(text, fold)
            place = float((scale(value) - scale(low)) / (scale(high) - scale(low))) * width * 72
            half = max(len(line) for line in label.split("\n")) * _LETTER / 2
            if place - half > last:
                kept.append((value, label))
                last = place + half + 2
        if len(kept) == len(inside):
            break
    return np.array([value for value, _ in kept]), [text for _, text in kept]


def _crowded(texts: Sequence[str], width: float) -> bool:
    letters = sum(max(len(line) for line in text.split("\n")) + 1 for text in texts)
    return letters * _LETTER > width * 72
