"""One function a kind of trace: what plotly shows of it, drawn by matplotlib with the same numbers."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.cm import ScalarMappable

from analysis.static.areas import bar, box, heat_map, histogram, image
from analysis.static.axes import Place
from analysis.static.scatter import UnsupportedError, scatter


def draw(place: Place, trace: Any, bars: Sequence[Any]) -> ScalarMappable | None:
    """Draws a trace into its subplot; returns what a colour bar would be made of.

    Args:
        place: the subplot.
        trace: of plotly.
        bars: all bar traces of this subplot, which stand beside or on one another.

    Raises:
        UnsupportedError: there is no way to draw it.
    """
    kinds: dict[str, Callable[[], ScalarMappable | None]] = {
        "scatter": lambda: scatter(place, trace), "scattergl": lambda: scatter(place, trace),
        "bar": lambda: bar(place, trace, bars), "heatmap": lambda: heat_map(place, trace),
        "histogram": lambda: histogram(place, trace), "box": lambda: box(place, trace),
        "image": lambda: image(place, trace),
    }  # fmt: skip
    if trace.type not in kinds:
        raise UnsupportedError(f"a trace of type {trace.type!r}")
    return kinds[trace.type]()
