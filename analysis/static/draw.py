"""Draws a plotly figure, or a panel of pictures, as a figure of matplotlib in a print's size."""

import base64
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import plotly.graph_objects as go
from matplotlib.figure import Figure
from matplotlib.image import imread

from analysis.figures.style import Strip
from analysis.static import marks
from analysis.static.axes import arrange, finish, height_of_names
from analysis.static.colours import INK, plain
from analysis.static.scatter import UnsupportedError
from analysis.static.traces import draw

_SCREEN = 130  # pixels of the report's figures to an inch of a page
_PAGE = 6.5  # inches: a width at which heights are as on the screen
_PRINT: Any = {
    "font.size": 8.0, "axes.titlesize": 8.5, "axes.labelsize": 8.0, "xtick.labelsize": 7.0, "ytick.labelsize": 7.0,
    "legend.fontsize": 7.0, "axes.linewidth": 0.6, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "hatch.linewidth": 0.5, "axes.edgecolor": "#8a929b",
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.unicode_minus": True,
    # Fonts whole in the file, as outlines that journals take; the same file for the same records.
    "pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "path", "svg.hashsalt": "sbbridge", "savefig.dpi": 300,
}  # fmt: skip


@contextmanager
def print_style() -> Iterator[None]:
    """Small type, thin lines, fonts embedded."""
    with mpl.rc_context(_PRINT), warnings.catch_warnings():
        # A subplot that the layout cannot give room is drawn nevertheless.
        warnings.filterwarnings("ignore", message="constrained_layout not applied")
        yield


def draw_figure(figure: go.Figure, width: float) -> tuple[Figure, list[str]]:
    """A plotly figure in matplotlib, and what of it could not be drawn.

    Args:
        figure: as the report shows it.
        width: in inches.
    """
    shown = [trace for trace in figure.data if trace.visible in (None, True)]
    known = [trace for trace in shown if _has_axes(trace)]
    left_out = [f"a trace of type {trace.type!r}" for trace in shown if not _has_axes(trace)]
    height = float(figure.layout.height or 420) / _SCREEN * min(1.2, max(0.8, width / _PAGE))
    canvas = Figure(figsize=(width, height), layout="constrained")
    if not known:
        _gap(canvas.text, left_out)
        return canvas, left_out
    places = arrange(figure, canvas, known)
    drawn = []
    for trace in known:
        place = places[(trace.xaxis or "x", trace.yaxis or "y")]
        try:
            mappable = draw(place, trace, [one for one in known if one.type == "bar" and _same(one, trace)])
        except UnsupportedError as error:
            left_out.append(str(error))
            _gap(place.axes.text, [str(error)], transform=place.axes.transAxes)
            continue
        drawn.append(trace)
        if mappable is not None:
            marks.colour_bar(canvas, place, mappable, _described(figure, trace))
    everywhere = list(places.values())
    left_out += marks.shapes(figure, everywhere)
    left_out += marks.annotations(figure, everywhere)
    for place in everywhere:
        finish(place)
    rows = max(place.axes.get_subplotspec().get_gridspec().nrows for place in everywhere)  # type: ignore[union-attr]
    height = max(height, rows * (0.5 + max(height_of_names(place) for place in everywhere)))
    key = marks.legend(figure, canvas, drawn)
    if key is not None:
        height += key.get_window_extent().height / canvas.dpi
    canvas.set_figheight(height)
    return canvas, list(dict.fromkeys(left_out))


def draw_strips(strips: Sequence[Strip], width: float) -> Figure:
    """Rows of pictures, each with its name, under the name of its row."""
    across = max(len(strip.pictures) for strip in strips)
    pictures = [[(label, _decoded(png)) for label, png, _ in strip.pictures] for strip in strips]
    tallest = [max(image.shape[0] / image.shape[1] for _, image in row) for row in pictures]
    widest = width if across > 3 else min(width, 1.6 * across)
    heights = [min(share * widest / max(1, len(row)) if strips[0].wide else share * widest / across, 4.0) + 0.42
               for share, row in zip(tallest, pictures, strict=True)]  # fmt: skip
    canvas = Figure(figsize=(widest, sum(heights)), layout="constrained")
    rows = canvas.subfigures(len(strips), 1, height_ratios=heights, squeeze=False)
    for strip, row, part in zip(strips, pictures, rows[:, 0], strict=True):
        part.suptitle(plain(strip.label), fontsize="medium", x=0.01, ha="left")
        cells = part.subplots(1, len(row) if strip.wide else across, squeeze=False)[0]
        for axes in cells:
            axes.set_axis_off()
        for axes, (label, image) in zip(cells, row, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_title(plain(label), fontsize="small")
    return canvas


def _decoded(png: str) -> Any:
    return imread(io.BytesIO(base64.b64decode(png)), format="png")


def _has_axes(trace: Any) -> bool:
    return "xaxis" in trace


def _same(one: Any, other: Any) -> bool:
    return (one.xaxis or "x", one.yaxis or "y") == (other.xaxis or "x", other.yaxis or "y")


def _described(figure: go.Figure, trace: Any) -> Any:
    """The colour bar's entries: the trace's, its markers' or the layout's."""
    holder = trace if trace.type == "heatmap" else trace.marker
    return (figure.layout[holder.coloraxis] if holder.coloraxis else holder).colorbar


def _gap(write: Callable[..., Any], left_out: Sequence[str], **place: Any) -> None:
    text = "not drawn: " + ", ".join(dict.fromkeys(left_out))
    write(0.5, 0.5, text, ha="center", va="center", color="#B00020", **place)
