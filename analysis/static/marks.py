"""What stands beside the traces: straight lines of the layout, annotations, legend and colour bars."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.static.axes import Place, folded, inches
from analysis.static.colours import colour, plain
from analysis.static.scatter import colours_of, dash, is_open, marker, stroke

_NAMED = ("scatter", "scattergl", "bar", "histogram", "box")


def shapes(figure: go.Figure, places: Iterable[Place]) -> list[str]:
    """Draws lines and rectangles that span a subplot; names what it cannot draw."""
    left_out = []
    for shape in figure.layout.shapes:
        drawn = [_shape(place, shape) for place in places if _holds(place, shape)]
        if not any(drawn):
            left_out.append(f"a shape of type {shape.type!r}")
    return left_out


def _holds(place: Place, shape: Any) -> bool:
    names = {"x": place.x_name, "y": place.y_name}
    for side, name in names.items():
        reference = str(shape[f"{side}ref"] or side)
        if reference != "paper" and reference.split(" ")[0] != name:
            return False
    return True


def _shape(place: Place, shape: Any) -> bool:
    spans = {side: str(shape[f"{side}ref"] or "").endswith(("domain", "paper")) for side in "xy"}
    line = {"color": colour(shape.line.color or "#444444"), "linestyle": dash(shape.line),
            "linewidth": stroke(shape.line.width), "zorder": 1.8}  # fmt: skip
    x = [float(shape[name]) if spans["x"] else place.x.numbers([shape[name]])[0] for name in ("x0", "x1")]
    y = [float(shape[name]) if spans["y"] else place.y.numbers([shape[name]])[0] for name in ("y0", "y1")]
    if shape.type == "line" and spans["x"] and y[0] == y[1]:
        place.axes.axhline(y[0], x[0], x[1], **line)
    elif shape.type == "line" and spans["y"] and x[0] == x[1]:
        place.axes.axvline(x[0], y[0], y[1], **line)
    elif shape.type == "line" and not any(spans.values()):
        place.axes.plot(x, y, **line)
    elif shape.type == "rect" and spans["x"] != spans["y"]:
        face = colour(shape.fillcolor or "#888888", shape.opacity)
        if spans["x"]:
            place.axes.axhspan(*y, facecolor=face, linewidth=0)
        else:
            place.axes.axvspan(*x, facecolor=face, linewidth=0)
    else:
        return False
    return True


def annotations(figure: go.Figure, places: Sequence[Place]) -> list[str]:
    """Titles of subplots become titles, those of rows stand at their right, what is at a point stays there."""
    left_out = []
    for note in figure.layout.annotations:
        text = plain(note.text)
        if note.visible is False or not text:
            continue
        if str(note.xref or "paper") == "paper" and str(note.yref or "paper") == "paper":
            _in_figure(places, note, text)
        elif not _at_point(places, note, text):
            left_out.append(f"the annotation {text!r}")
    return left_out


def _in_figure(places: Sequence[Place], note: Any, text: str) -> None:
    x, y = float(note.x if note.x is not None else 0.5), float(note.y if note.y is not None else 0.5)
    for place in places:
        left, right = place.x.layout.domain or (0.0, 1.0)
        low, high = place.y.layout.domain or (0.0, 1.0)
        if abs(x - (left + right) / 2) < 1e-6 and abs(y - high) < 1e-6:
            width = inches(place)
            title = folded(text, max(8, int(width * 15)))
            longest = max(len(line) for line in title.splitlines())
            place.axes.set_title(title, fontsize=min(8.5, max(5.0, 72 * width / (0.6 * longest))))
            return
        if note.textangle and abs(y - (low + high) / 2) < 1e-6 and x >= right - 1e-6:
            place.axes.annotate(text, (1.02, 0.5), xycoords="axes fraction", rotation=-90, va="center")
            return
    nearest = min(places, key=lambda place: _distance(place, x, y))
    left, right = nearest.x.layout.domain or (0.0, 1.0)
    low, high = nearest.y.layout.domain or (0.0, 1.0)
    inside = ((x - left) / (right - left), (y - low) / (high - low))
    side: Any = {"auto": "center", None: "center"}.get(note.xanchor, note.xanchor)
    nearest.axes.annotate(text, inside, xycoords="axes fraction", ha=side, va="center", fontsize="small")


def _distance(place: Place, x: float, y: float) -> float:
    left, right = place.x.layout.domain or (0.0, 1.0)
    low, high = place.y.layout.domain or (0.0, 1.0)
    return math.hypot(x - min(max(x, left), right), y - min(max(y, low), high))


def _at_point(places: Sequence[Place], note: Any, text: str) -> bool:
    for place in places:
        if (note.xref or "x").split(" ")[0] != place.x_name or (note.yref or "y").split(" ")[0] != place.y_name:
            continue
        # On a logarithmic axis plotly places annotations by the logarithm.
        x, y = (
            float(value) if str(reference).endswith("domain") else 10.0 ** float(value) if axis.log
            else float(axis.numbers([value])[0])
            for value, reference, axis in ((note.x, note.xref, place.x), (note.y, note.yref, place.y))
        )  # fmt: skip
        coordinates: Any = tuple(
            "axes fraction" if str(reference).endswith("domain") else "data" for reference in (note.xref, note.yref)
        )
        place.axes.annotate(text, (x, y), xycoords=coordinates, ha="center", va="bottom", fontsize="small")
        return True
    return False


def legend(figure: go.Figure, canvas: Figure, traces: Sequence[Any]) -> Legend | None:
    """The names of the traces above the subplots, in as many columns as the width allows."""
    if figure.layout.showlegend is False:
        return None
    named = [trace for trace in traces if trace.type in _NAMED and trace.name and trace.showlegend is not False]
    if not named or (len(named) < 2 and figure.layout.showlegend is None):
        return None
    room = canvas.get_figwidth() * 72
    longest = max(20, int(room / 5))
    labels = ["\n".join(textwrap.wrap(plain(trace.name), longest)) for trace in named]
    handles = [_handle(trace) for trace in named]
    # Measured without a layout: of eight points a letter is half as wide as it is high.
    wide = max(len(line) for label in labels for line in label.splitlines()) * 3.9 + 28
    columns = max(1, min(len(labels), int(room / wide)))
    title = plain(figure.layout.legend.title.text) or None
    return canvas.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, title=title,
                         fontsize="small", columnspacing=1.2, handletextpad=0.5, borderaxespad=0.1)  # fmt: skip


def _handle(trace: Any) -> Artist:
    line, marks = colours_of(trace)
    if trace.type in ("bar", "histogram", "box"):
        return Patch(color=marks)
    mode, symbol = str(trace.mode or "lines"), trace.marker.symbol
    single = symbol if isinstance(symbol, str) else None
    return Line2D(
        [], [], color=line, linestyle=dash(trace.line) if "lines" in mode else "",
        linewidth=stroke(trace.line.width),
        marker=marker(single) if "markers" in mode else "", markersize=4.5, markeredgecolor=marks,
        markeredgewidth=0.8 if is_open(single) else 0, markerfacecolor="none" if is_open(single) else marks,
    )  # fmt: skip


def colour_bar(canvas: Figure, place: Place, mappable: ScalarMappable, described: Any) -> None:
    """The bar that says what colours mean."""
    bar = canvas.colorbar(mappable, ax=place.axes, pad=0.02, fraction=0.06)
    bar.outline.set_visible(False)
    if described.tickvals is not None:
        texts = described.ticktext if described.ticktext is not None else [f"{tick:g}" for tick in described.tickvals]
        bar.set_ticks([float(tick) for tick in described.tickvals], labels=[plain(text) for text in texts])
        bar.ax.minorticks_off()
    if described.title.text:
        bar.set_label(plain(described.title.text))
