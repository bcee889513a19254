"""Plotly's colours and texts in matplotlib's words."""

import html
import re
from collections.abc import Sequence
from typing import Any

from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgba

Colour = tuple[float, float, float, float]
INK = "#202428"
_RGB = re.compile(r"rgba?\(([^)]*)\)")
_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^>]*>")


def colour(value: Any, opacity: float | None = None) -> Colour:
    """A colour of plotly, `rgba(0,114,178,0.16)`, `#0072B2` or a name, its opacity multiplied by another."""
    found = _RGB.fullmatch(str(value).replace(" ", ""))
    if found:
        parts = [float(part) for part in found[1].split(",")]
        red, green, blue, *alpha = parts
        known = to_rgba((red / 255, green / 255, blue / 255), alpha[0] if alpha else 1.0)
    else:
        known = to_rgba(str(value))
    return (*known[:3], known[3] * (1.0 if opacity is None else opacity))


def is_colour(value: Any) -> bool:
    """Whether this is one colour, not a list of them or of numbers."""
    return isinstance(value, str)


def colour_map(scale: Sequence[Sequence[Any]], reverse: bool | None) -> Colormap:
    """A colour scale, ((0, colour), …, (1, colour)), as a map."""
    stops = [(float(place), colour(value)) for place, value in scale]
    if reverse:
        stops = [(1 - place, value) for place, value in reversed(stops)]
    return LinearSegmentedColormap.from_list("plotly", stops)


def plain(text: Any) -> str:
    """Text without markup; what matplotlib would read as mathematics stays text."""
    if text is None:
        return ""
    return html.unescape(_TAG.sub("", _BREAK.sub("\n", str(text)))).replace("$", r"\$")
