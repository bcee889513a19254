"""Lines, markers, text, error bars and bands: plotly's scatter traces with the same numbers."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from analysis.static.axes import Place
from analysis.static.colours import Colour, colour, colour_map, is_colour, plain

POINTS = 0.62  # a pixel of the screen in points of print
_MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "triangle-left": "<",
    "triangle-right": ">", "x": "X", "cross": "P", "star": "*", "pentagon": "p", "hexagon": "h", "line-ew": "_",
    "line-ns": "|", "asterisk": "x",
}  # fmt: skip
DASHES: dict[str, Any] = {
    "solid": "-", "dash": (0, (5, 3)), "dot": (0, (1, 1.6)), "dashdot": (0, (5, 2, 1, 2)), "longdash": (0, (9, 3)),
    "longdashdot": (0, (9, 3, 1, 3)),
}  # fmt: skip
_STEPS: dict[str, Any] = {"hv": "steps-post", "vh": "steps-pre", "hvh": "steps-mid"}
_CIVIDIS = ((0, "#00224e"), (0.5, "#7d7c78"), (1, "#fee838"))
_SIDES = {"left": "right", "center": "center", "right": "left"}


class UnsupportedError(Exception):
    """A trace that has no counterpart here; the message names it."""


def dash(line: Any) -> Any:
    """A line's dashes."""
    return DASHES.get(line.dash or "solid", "-")


def stroke(pixels: Any, default: float = 2.0) -> float:
    """A line's width in points."""
    return (default if pixels is None else float(pixels)) * POINTS


def marker(symbol: Any) -> str:
    """A symbol; the open ones are told by `is_open`."""
    name = str(symbol or "circle").removesuffix("-dot").removesuffix("-open")
    return _MARKERS.get(name, "o")


def is_open(symbol: Any) -> bool:
    """Whether a symbol is an outline."""
    return str(symbol).endswith("-open")


def colours_of(trace: Any) -> tuple[Colour, Colour]:
    """(line, marker): what of the two is not set is as the other."""
    line = trace.line.color if trace.type != "bar" else None
    marks = trace.marker.color if is_colour(trace.marker.color) else None
    first = line or marks or "#444444"
    return colour(first, trace.opacity), colour(marks or first, trace.opacity)


def scatter(place: Place, trace: Any) -> ScalarMappable | None:
    """Lines, markers, text, error bars and filled outlines."""
    y = place.y.numbers(trace.y)
    x = place.x.numbers(trace.x if trace.x is not None else range(len(y)))
    if not len(x):
        return None
    mode = str(trace.mode or ("lines+markers" if len(x) < 20 else "lines"))
    line, marks = colours_of(trace)
    _fill(place, trace, x, y)
    listed = _listed(trace.marker) if "markers" in mode else False
    style: dict[str, Any] = {"linestyle": "", "color": line, "zorder": 2.2, "linewidth": stroke(trace.line.width)}
    if "lines" in mode and trace.line.width != 0:
        style |= {"linestyle": dash(trace.line), "drawstyle": _STEPS.get(trace.line.shape or "", "default")}
    if "markers" in mode and not listed:
        style |= _uniform(trace.marker, marks)
    if style["linestyle"] or "marker" in style:
        place.axes.plot(x, y, **style)
    mappable = _points(place, trace, x, y) if listed else None
    error_bars(place, trace, x, y, marks)
    if "text" in mode:
        _texts(place, trace, x, y)
    return mappable


def _uniform(marks: Any, shade: Colour) -> dict[str, Any]:
    """How markers look that are all alike."""
    alpha = 1.0 if marks.opacity is None else float(marks.opacity)
    face = (*shade[:3], shade[3] * alpha)
    outline = is_open(marks.symbol)
    return {
        "marker": marker(marks.symbol), "markersize": stroke(marks.size, 6.0), "markeredgecolor": face,
        "markerfacecolor": "none" if outline else face, "markeredgewidth": 0.8 if outline else 0,
    }  # fmt: skip


def _fill(place: Place, trace: Any, x: np.ndarray, y: np.ndarray) -> None:
    if trace.fill in (None, "none"):
        return
    shade = colour(trace.fillcolor or trace.line.color or "#888888", trace.opacity)
    if trace.fill == "toself":
        breaks = np.flatnonzero(np.isnan(x) | np.isnan(y))
        for part in np.split(np.arange(len(x)), breaks):
            part = part[~np.isnan(x[part]) & ~np.isnan(y[part])]
            place.axes.fill(x[part], y[part], color=shade, linewidth=0, zorder=1.5)
    elif trace.fill == "tozeroy":
        steps: dict[str, Any] = {"hv": "post", "vh": "pre", "hvh": "mid"}
        place.axes.fill_between(x, y, 0, color=shade, linewidth=0, zorder=1.5,
                                step=steps.get(trace.line.shape or ""))  # fmt: skip
    else:
        raise UnsupportedError(f"a trace that is filled {trace.fill!r}")


def _listed(marks: Any) -> bool:
    """Whether points differ in colour, size, symbol or opacity."""
    given = (marks.color, marks.size, marks.symbol, marks.opacity)
    return any(value is not None and not isinstance(value, str | int | float) for value in given)


def _points(place: Place, trace: Any, x: np.ndarray, y: np.ndarray) -> ScalarMappable | None:
    marks, count = trace.marker, len(x)
    sizes = (np.broadcast_to(np.asarray(6 if marks.size is None else marks.size, dtype=float), count) * POINTS) ** 2
    symbols = np.broadcast_to(np.asarray(marks.symbol or "circle", dtype=object), count)
    opacity = np.broadcast_to(np.asarray(1.0 if marks.opacity is None else marks.opacity, dtype=float), count)
    mappable, faces = _mapped(trace, marks, count)
    faces = faces * np.stack([np.ones(count)] * 3 + [opacity], axis=1)
    for symbol in dict.fromkeys(symbols.tolist()):
        own = symbols == symbol
        style: dict[str, Any] = {"c": faces[own], "linewidths": 0}
        if is_open(symbol):
            style = {"edgecolors": faces[own], "facecolors": "none", "linewidths": 0.8}
        place.axes.scatter(x[own], y[own], s=sizes[own], marker=marker(symbol), zorder=2.4, **style)
    return mappable


def _mapped(trace: Any, marks: Any, count: int) -> tuple[ScalarMappable | None, np.ndarray]:
    """Each point's colour, and the map where colours are numbers."""
    values = marks.color
    if values is None or is_colour(values):
        return None, np.tile(colours_of(trace)[1], (count, 1))
    if all(isinstance(value, str) for value in values):
        return None, np.array([colour(value) for value in values])
    numbers = np.array([math.nan if value is None else float(value) for value in values])
    axis = colour_axis(trace, marks)
    mapping = ScalarMappable(**scaled(numbers, axis, (axis.cmin, axis.cmax, axis.cmid)))
    mapping.set_array(numbers)
    return (mapping if marks.showscale or marks.coloraxis else None), np.asarray(mapping.to_rgba(numbers))


def colour_axis(trace: Any, holder: Any) -> Any:
    """Where the colour scale stands: with the trace, or with the layout that several share."""
    if holder.coloraxis is None:
        return holder
    return trace.parent.layout[holder.coloraxis]


def scaled(values: np.ndarray, axis: Any, ends: Sequence[float | None]) -> dict[str, Any]:
    """Norm and colour map of numbers.

    Args:
        values: the numbers.
        axis: what holds the colour scale.
        ends: the lowest, the highest and the middle value that have a colour, None: as the numbers have it.
    """
    low, high, middle = ends
    finite = values[np.isfinite(values)]
    least = float(finite.min()) if low is None and len(finite) else float(low or 0.0)
    most = float(finite.max()) if high is None and len(finite) else float(1.0 if high is None else high)
    if middle is not None and (low is None or high is None):
        reach = max(most - middle, middle - least)
        least, most = middle - reach, middle + reach
    scale = axis.colorscale if axis.colorscale is not None else _CIVIDIS
    return {"norm": Normalize(least, most), "cmap": colour_map(scale, axis.reversescale)}


def error_bars(place: Place, trace: Any, x: np.ndarray, y: np.ndarray, marks: Colour) -> None:
    """Bars in both directions, where the trace has some."""
    across, up = _reach(trace.error_x, x), _reach(trace.error_y, y)
    for error, xerr, yerr in ((trace.error_x, across, None), (trace.error_y, None, up)):
        if xerr is not None or yerr is not None:
            place.axes.errorbar(
                x, y, yerr, xerr, fmt="none", ecolor=colour(error.color) if error.color else marks, zorder=2.3,
                elinewidth=stroke(error.thickness), capsize=stroke(error.width, 4.0) / 2,
                capthick=stroke(error.thickness),
            )  # fmt: skip


def _reach(error: Any, values: np.ndarray) -> np.ndarray | None:
    """[down, up] of each bar."""
    if error.visible is False or (error.array is None and error.value is None):
        return None
    if error.array is None:
        up = values * float(error.value) / 100 if error.type == "percent" else np.full(len(values), float(error.value))
        return np.abs(np.stack([up, up]))
    up = np.array([math.nan if size is None else float(size) for size in error.array])
    if error.arrayminus is None or error.symmetric:
        return np.stack([up, up])
    return np.stack([np.array([math.nan if size is None else float(size) for size in error.arrayminus]), up])


def _texts(place: Place, trace: Any, x: np.ndarray, y: np.ndarray) -> None:
    texts = [trace.text] * len(x) if isinstance(trace.text, str) else list(trace.text if trace.text is not None else [])
    vertical, _, side = str(trace.textposition or "middle center").partition(" ")
    offset = {"top": 4.0, "middle": 0.0, "bottom": -4.0}[vertical]
    for across, up, text in zip(x, y, texts, strict=False):
        if text and math.isfinite(across) and math.isfinite(up):
            place.axes.annotate(
                plain(text), (across, up), (4.0 * ((side == "right") - (side == "left")), offset),
                textcoords="offset points", ha=_SIDES[side], fontsize="x-small",
                va={"top": "bottom", "middle": "center", "bottom": "top"}[vertical],
            )  # fmt: skip
