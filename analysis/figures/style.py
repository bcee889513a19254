"""How every figure looks: Okabe–Ito colours with markers and dashes to tell lines apart in print, no background."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from analysis.statistics import Interval

# Okabe & Ito's palette without black and yellow, which vanish on a dark and on a white page.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "triangle-down", "star")
DASHES = ("solid", "dash", "dot", "dashdot")
NAMED = 30  # lines that a legend holds
FLOOR_COLOUR = "#8C8C8C"
SEQUENTIAL = "Cividis"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
# The page replaces these by its own text colour, light or dark; the values serve a reader without scripts.
_INK, _LINE = "#3d444d", "rgba(128,128,128,0.25)"


@dataclass
class Panel:
    """One figure of the report, or the sentence that says why it is missing.

    Attributes:
        key: its identifier in the page.
        title: a few words.
        caption: how to read it, with n, seeds, floor and null; for a missing figure the reason.
        figure: a plotly figure.
        strips: rows of pictures instead of a figure.
    """

    key: str
    title: str
    caption: str
    figure: go.Figure | None = None
    strips: Sequence["Strip"] = ()

    @property
    def missing(self) -> bool:
        """Whether there is nothing to show but the reason."""
        return self.figure is None and not self.strips


@dataclass(frozen=True)
class Strip:
    """Pictures of one setting, side by side.

    Attributes:
        label: the setting.
        pictures: (label, PNG in base64, width of the picture in its own pixels).
        facets: what the report's filters look at.
        wide: whether a picture is a row of several, and needs the room of one.
        run: the run that they are of.
    """

    label: str
    pictures: Sequence[tuple[str, str, int]]
    facets: Mapping[str, str]
    wide: bool = False
    run: str = ""


def colour(index: int) -> str:
    """The colour of the i-th line."""
    return COLOURS[index % len(COLOURS)]


def faded(index: int, opacity: float = 0.16) -> str:
    """The colour of the i-th line's band."""
    value = colour(index).lstrip("#")
    red, green, blue = (int(value[i : i + 2], 16) for i in (0, 2, 4))
    return f"rgba({red},{green},{blue},{opacity})"


def marker(index: int, size: int = 9) -> dict[str, Any]:
    """Colour and symbol of the i-th line."""
    # The symbol shifts when the colours start again, so that 49 lines differ in one or the other.
    return {"color": colour(index), "symbol": SYMBOLS[(index + index // len(COLOURS)) % len(SYMBOLS)], "size": size}


def line(index: int, width: float = 2) -> dict[str, Any]:
    """Colour and dash of the i-th line; the dash changes once all colours are used."""
    return {"color": colour(index), "width": width, "dash": DASHES[(index // len(COLOURS)) % len(DASHES)]}


def unnamed(figure: go.Figure) -> str:
    """Takes away a legend that would bury its figure; the sentence that says so."""
    names = {trace.name for trace in figure.data if trace.name and trace.showlegend is not False}
    if len(names) <= NAMED:
        return ""
    figure.update_layout(showlegend=False)
    return " There are too many settings for a legend: hover a point for its name."


def finish(figure: go.Figure, height: int = 420, legend: bool = True, titled: bool = False) -> go.Figure:
    """Gives a figure the report's layout.

    Args:
        figure: the figure, with all its traces.
        height: in pixels.
        legend: whether it has one; it stands above the plot, where its length does no harm.
        titled: whether subplots have titles that the legend must clear.
    """
    top = 1 + (34 if titled else 8) / max(1, height - 100)
    figure.update_layout(
        template="none", height=height, margin={"l": 64, "r": 20, "t": 40 if titled else 16, "b": 52},
        showlegend=legend,
        paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"family": FONT, "size": 13, "color": _INK},
        legend={"orientation": "h", "y": top, "yanchor": "bottom", "x": 0, "font": {"size": 12}},
        modebar={"bgcolor": "rgba(0,0,0,0)"}, hoverlabel={"font": {"family": FONT}}, hovermode="closest",
    )  # fmt: skip
    axis = {
        "gridcolor": _LINE, "linecolor": _LINE, "tickcolor": _LINE, "zeroline": False, "automargin": True,
        "ticks": "outside",
        "title": {"font": {"size": 13}},
    }  # fmt: skip
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_annotations(font={"size": 13})
    return figure


def value_axis(figure: go.Figure, title: str, values: Sequence[float], axis: str = "y", **place: Any) -> None:
    """An axis of values, logarithmic where all are positive, with ticks at 1, 2 and 5 of each decade.

    Within a factor of two it is linear, as a logarithmic one would look.
    """
    update = figure.update_xaxes if axis == "x" else figure.update_yaxes
    update(title_text=title, **place)
    finite = [value for value in values if math.isfinite(value)]
    if not positive(values) or max(finite) < 2 * min(finite):
        return
    low, high = min(finite), max(finite)
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    if high / low < 3:
        ticks = [step * 10.0**decade for decade in decades for step in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
    update(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], **place)


def nfe_axis(figure: go.Figure, budgets: Sequence[int], **place: Any) -> None:
    """A logarithmic axis of network calls, ticked where there are measurements."""
    ticks = [budget for budget in budgets if budget > 0]
    figure.update_xaxes(title_text="network calls a sample (NFE)", **place)
    if ticks:
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks], **place)


def point(run: str = "", nfe: int | None = None, seed: int | None = None, x: Interval | None = None,
          y: Interval | None = None) -> dict[str, Any]:  # fmt: skip
    """What the page knows of a point, an entry of the trace's `customdata`: what filters and clicks need.

    A trace with one entry and several points has it for all of them.

    Args:
        run: the run that it is of (`tables_runs.run_name`), or the digest of a setting, of whose seeds it is the mean.
        nfe: the network calls it was measured at.
        seed: of the one run that it is of.
        x: the interval that its place along x shows; with seeds switched off the page makes it anew.
        y: the same along y (or of the colour, in a heat map).
    """
    known: dict[str, Any] = {"run": run} if run else {}
    known |= {"NFE": str(nfe)} if nfe else {}
    known |= {"seed": str(seed)} if seed is not None else {}
    for axis, interval in (("x", x), ("y", y)):
        if interval is not None and interval.by_seed:
            known[axis] = {str(key): float(f"{value:.6g}") for key, value in interval.by_seed.items()}
            if interval.method == "standard deviation":
                known["spread"] = 1
    return known


def error_bars(intervals: Sequence[Interval], axis_type: str = "log") -> dict[str, Any]:
    """Plotly's error bars of some intervals; a lower end that a logarithmic axis cannot show stops short of zero."""
    up = [_finite(interval.high - interval.mean) for interval in intervals]
    down = [_finite(interval.mean - interval.low) for interval in intervals]
    if axis_type == "log":
        down = [min(size, 0.9 * interval.mean) for size, interval in zip(down, intervals, strict=True)]
    return {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.6, "width": 5}


def positive(values: Sequence[float]) -> bool:
    """Whether a logarithmic axis can show these values."""
    finite = [value for value in values if math.isfinite(value)]
    return bool(finite) and min(finite) > 0


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0
