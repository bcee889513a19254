"""A figure as the JSON that the page draws: numbers with six digits, texts that cannot be taken for HTML."""

import json
import math
import re
from typing import Any

import numpy as np
import plotly.graph_objects as go

_DIGITS = 6
# Plotly reads a few tags in texts; of ours it may read the line break alone.
_TAG = re.compile(r"<(?!br>|extra></extra>)")
_OWN = frozenset({"customdata", "meta"})  # read by the page's own script, which escapes nothing


def figure_json(figure: go.Figure) -> str:
    """Traces, layout and frames, fit to stand in a script element."""
    drawn = {"data": [trace.to_plotly_json() for trace in figure.data], "layout": figure.layout.to_plotly_json()}
    if figure.frames:
        drawn["frames"] = [frame.to_plotly_json() for frame in figure.frames]
    return embedded(_compact(drawn))


def embedded(value: Any) -> str:
    """JSON in which nothing ends a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _compact(value: Any, raw: bool = False) -> Any:
    if isinstance(value, dict):
        return {str(key): _compact(item, raw or key in _OWN) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _compact(value.tolist(), raw)
    if isinstance(value, list | tuple):
        return [_compact(item, raw) for item in value]
    if isinstance(value, str):
        return value if raw else _TAG.sub("&lt;", value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None
    return str(value)
