"""Bars, cells, counts, boxes and pixels: the traces that are areas."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable

from analysis.static.axes import Place
from analysis.static.colours import colour, is_colour, plain
from analysis.static.scatter import UnsupportedError, colour_axis, colours_of, error_bars, scaled

_HATCHES = {"/": "///", "\\": "\\\\\\", "x": "xxx", "-": "---", "|": "|||", "+": "+++", ".": "..."}


def bar(place: Place, trace: Any, bars: Sequence[Any]) -> None:
    """Bars beside one another, or on one another where the layout stacks them."""
    flat = trace.orientation == "h"
    along, across = (trace.y, trace.x) if flat else (trace.x, trace.y)
    axis, other = (place.y, place.x) if flat else (place.x, place.y)
    positions, lengths = axis.numbers(along), other.numbers(across)
    mode = trace.parent.layout.barmode or "group"
    step = float(np.diff(np.unique(positions)).min()) if len(np.unique(positions)) > 1 else 1.0
    full = step * (1 - (0.2 if trace.parent.layout.bargap is None else float(trace.parent.layout.bargap)))
    width = full / len(bars) if mode == "group" else full
    if trace.width is not None:
        width = float(trace.width) if isinstance(trace.width, int | float) else float(trace.width[0])
    rank = next(index for index, one in enumerate(bars) if one is trace)
    shift = (rank - (len(bars) - 1) / 2) * width if mode == "group" else 0.0
    base = np.zeros(len(lengths))
    if mode in ("stack", "relative"):
        base = np.array([place.stacked.get(position, 0.0) for position in positions])
        for position, length in zip(positions, np.nan_to_num(lengths), strict=True):
            place.stacked[position] = place.stacked.get(position, 0.0) + length
    faces = trace.marker.color
    shade = [colour(value) for value in faces] if faces is not None and not is_colour(faces) else colours_of(trace)[1]
    pattern = trace.marker.pattern.shape
    hatch = _HATCHES.get(pattern) if isinstance(pattern, str) else None
    style: dict[str, Any] = {"color": shade, "hatch": hatch, "edgecolor": "white", "linewidth": 0.4}
    if flat:
        place.axes.barh(positions + shift, lengths, width, left=base, **style)
        error_bars(place, trace, base + lengths, positions + shift, colour("#444444"))
    else:
        place.axes.bar(positions + shift, lengths, width, bottom=base, **style)
        error_bars(place, trace, positions + shift, base + lengths, colour("#444444"))


def heat_map(place: Place, trace: Any) -> ScalarMappable | None:
    """Cells with their numbers; what has none stays white."""
    values = np.array([[math.nan if cell is None else float(cell) for cell in row] for row in trace.z], dtype=float)
    x = place.x.numbers(trace.x if trace.x is not None else range(values.shape[1]))
    y = place.y.numbers(trace.y if trace.y is not None else range(values.shape[0]))
    axis = colour_axis(trace, trace)
    low, high, middle = (
        (trace.zmin, trace.zmax, trace.zmid) if trace.coloraxis is None else (axis.cmin, axis.cmax, axis.cmid)
    )
    gap = bool(trace.xgap or trace.ygap)
    mesh = place.axes.pcolormesh(
        _edges(x), _edges(y), np.ma.masked_invalid(values), edgecolors="white" if gap else "none",
        linewidth=1.5 if gap else 0, **scaled(values, axis, (low, high, middle)),
    )  # fmt: skip
    if trace.text is not None and trace.texttemplate == "%{text}":
        for row, up in enumerate(y):
            for column, across in enumerate(x):
                seen = math.isfinite(values[row, column])
                ink = _readable(mesh.to_rgba(values[row, column])) if seen else "black"
                text = plain(trace.text[row][column])
                place.axes.text(across, up, text, ha="center", va="center", fontsize="small", color=ink)
    return mesh if trace.showscale is not False else None


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of cells, halfway between their centres."""
    if len(centres) < 2:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _readable(face: Any) -> str:
    red, green, blue = (float(part) for part in np.asarray(face)[:3])
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def histogram(place: Place, trace: Any) -> None:
    """Counts, shares or densities in the bins that the trace names, else in as many as numpy would take."""
    flat = trace.y is not None
    values = (place.y if flat else place.x).numbers(trace.y if flat else trace.x)
    values = values[np.isfinite(values)]
    named = trace.ybins if flat else trace.xbins
    if named.size is not None:
        start, end = (float(values.min()) if named.start is None else float(named.start),
                      float(values.max()) if named.end is None else float(named.end))  # fmt: skip
        edges = start + float(named.size) * np.arange(max(1, math.ceil((end - start) / float(named.size) - 1e-9)) + 1)
    else:
        edges = np.histogram_bin_edges(values, (trace.nbinsy if flat else trace.nbinsx) or "auto")
    norm = trace.histnorm or ""
    counts = np.histogram(values, edges, density="density" in norm and "probability" in norm)[0].astype(float)
    if norm in ("probability", "percent"):
        counts *= (100 if norm == "percent" else 1) / max(1, len(values))
    elif norm == "density":
        counts /= np.diff(edges)
    face = colours_of(trace)[1] if trace.marker.color is not None else colour("#444444")
    alpha = 1.0 if trace.marker.opacity is None else float(trace.marker.opacity)
    orientation: Any = "horizontal" if flat else "vertical"
    place.axes.stairs(counts, edges, fill=True, color=(*face[:3], face[3] * alpha), orientation=orientation)


def box(place: Place, trace: Any) -> None:
    """Quartiles, whiskers of 1.5 interquartile ranges, and the points beyond them or all of them."""
    flat = trace.orientation == "h" or (trace.y is None and trace.x is not None)
    raw, names = (trace.x, trace.y) if flat else (trace.y, trace.x)
    axis, other = (place.y, place.x) if flat else (place.x, place.y)
    values = other.numbers(raw)
    groups = axis.numbers(names) if names is not None else np.zeros(len(values))
    line = colours_of(trace)[0] if trace.line.color or trace.marker.color else colour("#444444")
    for position in np.unique(groups):
        own = values[(groups == position) & np.isfinite(values)]
        if not len(own):
            continue
        # Plotly's quartiles are Hazen's.
        low, median, high = np.quantile(own, [0.25, 0.5, 0.75], method="hazen")
        inside = own[(own >= low - 1.5 * (high - low)) & (own <= high + 1.5 * (high - low))]
        shown = {"all": own, False: own[:0]}.get(trace.boxpoints, own[~np.isin(own, inside)])
        stats = {"q1": low, "med": median, "q3": high, "whislo": inside.min(), "whishi": inside.max(), "fliers": shown}
        place.axes.bxp(
            [stats], positions=[position], widths=0.5, orientation="horizontal" if flat else "vertical",
            manage_ticks=False, boxprops={"color": line}, medianprops={"color": line}, whiskerprops={"color": line},
            capprops={"color": line}, flierprops={"marker": "o", "markersize": 2, "markerfacecolor": line,
                                                  "markeredgewidth": 0},
        )  # fmt: skip


def image(place: Place, trace: Any) -> None:
    """Pixels as they are."""
    if trace.z is None:
        raise UnsupportedError("an image that is given as a file, not as pixels")
    pixels = np.asarray(trace.z)
    x0, y0 = float(trace.x0 or 0), float(trace.y0 or 0)
    dx, dy = float(trace.dx or 1), float(trace.dy or 1)
    rows, columns = pixels.shape[:2]
    edges = (x0 - dx / 2, x0 + (columns - 0.5) * dx, y0 + (rows - 0.5) * dy, y0 - dy / 2)
    place.axes.imshow(pixels.astype(np.uint8), extent=edges, aspect="auto", interpolation="nearest")
