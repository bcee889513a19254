"""Figures of paths: how straight each is, what has been travelled and spent by time t, and where they run."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.artifacts import Artifacts
from analysis.figures import style
from analysis.figures.kept import Kept, kept, seeds_of
from analysis.figures.style import Panel
from analysis.results import Results

_FILE = "paths.npz"
_SETTINGS = 12
_DRAWN = 6  # settings whose trajectories are drawn
_BINS = 25
_QUANTILE = 0.995  # of all values; what lies beyond is counted in the last bin
_SECTORS = 6  # colours of trajectories: sectors of the plane that they start in
_MEASURES = (("straightness", "straightness of a path"), ("trajectory_variance", "variance of a path"))
_DEFINITIONS = (
    "Straightness of a path is ∫ |(x_end − x_start) − dx/dt|² dt and its variance ∫ |x_t − line_t|² dt, where line_t "
    "joins its ends at constant speed and time runs over [0, 1]; both are divided by the mean of |x_end − x_start|² "
    "over all paths of the setting, so that settings and data sets of different scale compare, and 0 (the floor) is a "
    "straight line at constant speed."
)


def path_panels(results: Results, artifacts: Artifacts) -> list[Panel]:
    """Histograms, accumulation in time, trajectories."""
    return [_histograms(results, artifacts), _accumulated(results, artifacts), _trajectories(results, artifacts)]


def _histograms(results: Results, artifacts: Artifacts) -> Panel:
    title = "How straight the paths are"
    found = kept(results, artifacts, _FILE, [name for name, _ in _MEASURES], _SETTINGS)
    if not found:
        return Panel("path_histograms", title, "No run of the ablation kept its paths (artifacts/…/paths.npz).")
    figure = make_subplots(1, len(_MEASURES), horizontal_spacing=0.09)
    for column, (name, label) in enumerate(_MEASURES, 1):
        edges = _edges([arrays[name] for _, _, arrays in found])
        for index, (setting, seed, arrays) in enumerate(found):
            values = _finite(arrays[name])
            share = 100 * np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(1, len(values))
            figure.add_scatter(
                x=edges, y=np.append(share, share[-1]).round(4), mode="lines", line_shape="hv", name=setting.label,
                legendgroup=setting.label, showlegend=column == 1, line=style.line(index, 1.8), row=1, col=column,
                meta=results.facets(setting),
                hovertemplate=f"{setting.label}, seed {seed}: %{{y:.3g}} % of {len(values)} paths<extra></extra>",
            )  # fmt: skip
        figure.update_xaxes(title_text=label, row=1, col=column)
    style.finish(figure, 400)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="per cent of paths", row=1, col=1)
    caption = (
        f"{_DEFINITIONS} One run a setting (n = 1, {seeds_of(found)}), {_counts(found, 'straightness')} paths each; "
        f"the last bin holds everything beyond the {100 * _QUANTILE:g} % quantile of all. The null is "
        f"{_null_words(results)}; intervals over seeds stand in the table “Paths and localised coupling”."
    )
    return Panel("path_histograms", title, caption, figure)


def _accumulated(results: Results, artifacts: Artifacts) -> Panel:
    title = "Path length and drift accumulated in time"
    found = kept(results, artifacts, _FILE, ["times", "accumulated_length"], _SETTINGS)
    if not found:
        return Panel("path_accumulated", title, "No run of the ablation kept the length of its paths.")
    drifts = any("accumulated_drift" in arrays and "drift_times" in arrays for _, _, arrays in found)
    figure = make_subplots(1, 1 + drifts, horizontal_spacing=0.1)
    for index, (setting, _, arrays) in enumerate(found):
        pairs = [("times", "accumulated_length"), *([("drift_times", "accumulated_drift")] if drifts else [])]
        for column, (times, name) in enumerate(pairs, 1):
            if times in arrays and name in arrays:
                figure.add_scatter(
                    x=arrays[times].astype(float), y=arrays[name].astype(float), mode="lines", name=setting.label,
                    legendgroup=setting.label, showlegend=column == 1, line=style.line(index), row=1, col=column,
                    meta=results.facets(setting), hovertemplate=f"{setting.label}, t = %{{x:.3g}}: %{{y:.3g}}"
                    "<extra></extra>",
                )  # fmt: skip
    style.finish(figure, 400)
    figure.update_xaxes(title_text="t: from the prior (1) to data (0)", range=[1, 0], row=1, col=1)
    figure.update_yaxes(title_text="length travelled, in units of the data", rangemode="tozero", row=1, col=1)
    caption = "Left: mean length of the sampled paths down to time t, Σ E|x_{j+1} − x_j|. "
    if drifts:
        figure.update_xaxes(title_text="t: from data (0) to the prior (1)", range=[0, 1], row=1, col=2)
        figure.update_yaxes(title_text="E ∫ ½ g² |u|² ds up to t, in nats", rangemode="tozero", row=1, col=2)
        caption += (
            "Right: control accumulated by the forward process, its relative entropy to the reference (floor 0: the "
            "reference itself), for methods that have a control. "
        )
    else:
        caption = caption.replace("Left: mean", "Mean") + "No run recorded the drift accumulated in time. "
    caption += f"One run a setting (n = 1, {seeds_of(found)}). The null is {_null_words(results)}."
    return Panel("path_accumulated", title, caption, figure)


def _trajectories(results: Results, artifacts: Artifacts) -> Panel:
    title = "Trajectories from the prior to data"
    found = kept(results, artifacts, _FILE, ["trajectories"], _SETTINGS)
    found = [item for item in found if item[2]["trajectories"].ndim == 3 and item[2]["trajectories"].shape[2] == 2]
    found = found[:_DRAWN]
    if not found:
        return Panel("trajectories", title, "No run of the ablation kept trajectories in the plane.")
    across = min(3, len(found))
    down = -(-len(found) // across)
    figure = make_subplots(
        down, across, shared_xaxes="all", shared_yaxes="all", horizontal_spacing=0.03, vertical_spacing=0.12 / down,
        subplot_titles=[setting.label for setting, _, _ in found],
    )  # fmt: skip
    for position, item in enumerate(found):
        _draw(figure, results, item, position // across + 1, position % across + 1)
    style.finish(figure, 60 + 300 * down, legend=False, titled=True)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False)
    caption = (
        f"The first {found[0][2]['trajectories'].shape[1]} paths of one run a setting (n = 1, {seeds_of(found)}), in "
        f"the order they were drawn; data in the plane as they are, others on the first two principal components of "
        f"the data. Coloured by the sector of the plane in which a path starts; dots: where it ends, at t = 0."
    )
    return Panel("trajectories", title, caption, figure)


def _draw(figure: go.Figure, results: Results, item: Kept, row: int, column: int) -> None:
    setting, _, arrays = item
    path = arrays["trajectories"].astype(np.float32)
    start = path[0] - path[0].mean(0)
    sector = ((np.arctan2(start[:, 1], start[:, 0]) / (2 * np.pi) % 1) * _SECTORS).astype(int) % _SECTORS
    for index in range(_SECTORS):
        own = path[:, sector == index]
        if not own.shape[1]:
            continue
        # One trace for all lines of a colour: NaN lifts the pen.
        broken = np.concatenate([own, np.full((1, *own.shape[1:]), np.nan, np.float32)])
        joined = broken.transpose(1, 0, 2).reshape(-1, 2)
        shared = {"row": row, "col": column, "showlegend": False, "hoverinfo": "skip", "meta": results.facets(setting)}
        figure.add_scatter(
            x=joined[:, 0], y=joined[:, 1], mode="lines", opacity=0.7, line={"color": style.colour(index), "width": 1},
            name=f"{setting.label}, sector {index + 1}", **shared,
        )  # fmt: skip
        figure.add_scatter(
            x=own[-1, :, 0], y=own[-1, :, 1], mode="markers", name=f"{setting.label}, ends",
            marker={"color": style.colour(index), "size": 4}, **shared,
        )  # fmt: skip


def _edges(values: Sequence[np.ndarray]) -> np.ndarray:
    every = np.concatenate([_finite(one) for one in values])
    top = float(np.quantile(every, _QUANTILE)) if len(every) else 1.0
    return np.linspace(0, top if top > 0 else 1.0, _BINS + 1)


def _finite(values: np.ndarray) -> np.ndarray:
    flat = values.ravel().astype(float)
    return flat[np.isfinite(flat)]


def _counts(found: Sequence[Kept], name: str) -> str:
    sizes = sorted({arrays[name].size for _, _, arrays in found})
    return str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"


def _null_words(results: Results) -> str:
    return f"the baseline ({results.design.baseline_label})" if results.design.baseline else "not recorded"
