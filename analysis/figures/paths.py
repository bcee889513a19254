"""Figures of paths: how straight each is, what has been travelled and spent by time t, and where they run."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.artifacts import Artifacts
from analysis.figures import style
from analysis.figures.kept import Kept, kept, seeds_of
from analysis.figures.style import Panel
from analysis.path_samplers import APART, MEASURES, ODE, SDE, UNKNOWN, PathSampler, path_samplers
from analysis.results import Results
from analysis.tables_measures import measure_rows

_FILE = "paths.npz"
_SETTINGS = 12
_DRAWN = 6  # settings whose trajectories are drawn
_BINS = 25
_ROW, _ROOM, _GAP = 300, 100, 70  # pixels of a row of histograms, of what is around them, and between two
_QUANTILE = 0.995  # of all values; what lies beyond is counted in the last bin
_FAR = 4  # times the reach of most settings: where axes of trajectories end
_FRAMES = 26  # of the animation
_SECTORS = 6  # colours of trajectories: sectors of the plane that they start in
_MEASURES = (("straightness", "straightness of a path"), ("trajectory_variance", "variance of a path"))
_WORDS = {ODE: "an ODE", SDE: "an SDE", UNKNOWN: "an unknown sampler"}
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
    sampler_of = path_samplers(measure_rows(results, MEASURES))
    samplers = [sampler_of(setting) for setting, _, _ in found]
    kinds = [kind for kind in (ODE, SDE, UNKNOWN) if kind in {sampler.kind for sampler in samplers}]
    height = _ROOM + _ROW * len(kinds)
    figure = make_subplots(
        len(kinds), len(_MEASURES), horizontal_spacing=0.09, vertical_spacing=_GAP / (height - _ROOM)
    )  # fmt: skip
    for row, column in product(range(1, len(kinds) + 1), range(1, len(_MEASURES) + 1)):
        name, label = _MEASURES[column - 1]
        mine = [index for index, sampler in enumerate(samplers) if sampler.kind == kinds[row - 1]]
        edges = _edges([found[index][2][name] for index in mine])  # an SDE's would squeeze an ODE's into one bin
        for index in mine:
            setting, seed, arrays = found[index]
            values = _finite(arrays[name])
            share = 100 * np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(1, len(values))
            figure.add_scatter(
                x=edges, y=np.append(share, share[-1]).round(4), mode="lines", line_shape="hv", name=setting.label,
                legendgroup=setting.label, showlegend=column == 1, line=style.line(index, 1.8), row=row, col=column,
                meta={**results.facets(setting), "seed": str(seed)},
                customdata=[style.point(f"{setting.digest}-{seed}", seed=seed)],
                hovertemplate=f"{setting.label}, seed {seed}: %{{y:.3g}} % of {len(values)} paths of "
                              f"{samplers[index].words or 'an unknown sampler'}<extra></extra>",
            )  # fmt: skip
        figure.update_xaxes(title_text=f"{label} of {_WORDS[kinds[row - 1]]}", row=row, col=column)
    style.finish(figure, height)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text="per cent of paths", col=1)
    caption = (
        f"{_DEFINITIONS} One run a setting (n = 1, {seeds_of(found)}), {_counts(found, 'straightness')} paths each; "
        f"the last bin holds everything beyond the {100 * _QUANTILE:g} % quantile of the panel. {APART}. Each kind has "
        f"a row and bins of its own ({_samplers_words(samplers)}). The null is {_null_words(results)}; intervals over "
        f"seeds stand in the table “Paths and localised coupling”."
    )
    return Panel("path_histograms", title, caption, figure)


def _accumulated(results: Results, artifacts: Artifacts) -> Panel:
    title = "Path length and drift accumulated in time"
    found = kept(results, artifacts, _FILE, ["times", "accumulated_length"], _SETTINGS)
    if not found:
        return Panel("path_accumulated", title, "No run of the ablation kept the length of its paths.")
    drifts = any("accumulated_drift" in arrays and "drift_times" in arrays for _, _, arrays in found)
    figure = make_subplots(1, 1 + drifts, horizontal_spacing=0.1)
    for index, (setting, seed, arrays) in enumerate(found):
        pairs = [("times", "accumulated_length"), *([("drift_times", "accumulated_drift")] if drifts else [])]
        for column, (times, name) in enumerate(pairs, 1):
            if times in arrays and name in arrays:
                figure.add_scatter(
                    x=arrays[times].astype(float), y=arrays[name].astype(float), mode="lines", name=setting.label,
                    legendgroup=setting.label, showlegend=column == 1, line=style.line(index), row=1, col=column,
                    customdata=[style.point(f"{setting.digest}-{seed}", seed=seed)],
                    meta={**results.facets(setting), "seed": str(seed)},
                    hovertemplate=f"{setting.label}, t = %{{x:.3g}}: %{{y:.3g}}<extra></extra>",
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
    style.finish(figure, 130 + 300 * down, legend=False, titled=True)
    x, y = (_limits(found, axis) for axis in (0, 1))
    figure.update_xaxes(showgrid=False, range=x)
    figure.update_yaxes(showgrid=False, range=y)
    _animate(figure, found)
    caption = (
        f"The first {found[0][2]['trajectories'].shape[1]} paths of one run a setting (n = 1, {seeds_of(found)}), in "
        f"the order they were drawn; data in the plane as they are, others on the first two principal components of "
        f"the data. Coloured by the sector of the plane in which a path starts; dots: where it ends, at t = 0, "
        f"or during play where it is at t. A setting that runs far away from the others is cut off: zoom out for it."
    )
    return Panel("trajectories", title, caption, figure)


def _draw(figure: go.Figure, results: Results, item: Kept, row: int, column: int) -> None:
    setting, seed, arrays = item
    path = arrays["trajectories"].astype(np.float32)
    sector = _sectors(path)
    shared = {
        "row": row, "col": column, "showlegend": False, "meta": {**results.facets(setting), "seed": str(seed)},
        "customdata": [style.point(f"{setting.digest}-{seed}")],
    }  # fmt: skip
    for index in range(_SECTORS):
        own = path[:, sector == index]
        if not own.shape[1]:
            continue
        # One trace for all lines of a colour: NaN lifts the pen.
        broken = np.concatenate([own, np.full((1, *own.shape[1:]), np.nan, np.float32)])
        joined = broken.transpose(1, 0, 2).reshape(-1, 2)
        figure.add_scatter(
            x=joined[:, 0], y=joined[:, 1], mode="lines", opacity=0.7, line={"color": style.colour(index), "width": 1},
            name=f"{setting.label}, sector {index + 1}", hoverinfo="skip", **shared,
        )  # fmt: skip
    figure.add_scatter(
        x=path[-1, :, 0], y=path[-1, :, 1], mode="markers", name=setting.label, hoverinfo="name",
        marker={"color": [style.colour(index) for index in sector], "size": 6}, **shared,
    )  # fmt: skip


def _limits(found: Sequence[Kept], axis: int) -> list[float]:
    """What holds every setting's paths, but none that go far further than those of most."""
    ends = np.array([np.quantile(arrays["trajectories"][..., axis], [0, 1]) for _, _, arrays in found])
    reach = _FAR * float(np.median(np.abs(ends).max(axis=1)))
    low, high = max(float(ends.min()), -reach), min(float(ends.max()), reach)
    room = 0.05 * (high - low)
    return [low - room, high + room]


def _sectors(path: np.ndarray) -> np.ndarray:
    """The sector of the plane in which each path starts."""
    start = path[0] - path[0].mean(0)
    return ((np.arctan2(start[:, 1], start[:, 0]) / (2 * np.pi) % 1) * _SECTORS).astype(int) % _SECTORS


def _animate(figure: go.Figure, found: Sequence[Kept]) -> None:
    """Frames that move the dots along their paths, with play, pause and a slider."""
    moving = [index for index, trace in enumerate(figure.data) if trace.mode == "markers"]
    length = min(len(arrays["trajectories"]) for _, _, arrays in found)
    names = []
    frames = []
    for step in np.unique(np.linspace(0, length - 1, min(_FRAMES, length)).round().astype(int)):
        at = {setting.digest: round(step * (len(arrays["trajectories"]) - 1) / max(1, length - 1))
              for setting, _, arrays in found}  # fmt: skip
        places = [arrays["trajectories"][at[setting.digest]].astype(np.float32) for setting, _, arrays in found]
        names.append(f"{1 - step / max(1, length - 1):.2f}")
        data = [go.Scatter(x=place[:, 0], y=place[:, 1]) for place in places]
        frames.append(go.Frame(name=names[-1], data=data, traces=moving))
    figure.frames = frames
    still = {"mode": "immediate", "frame": {"duration": 0, "redraw": False}, "transition": {"duration": 0}}
    play = {"frame": {"duration": 90, "redraw": False}, "transition": {"duration": 0}, "fromcurrent": True}
    figure.update_layout(
        margin={"b": 110},
        updatemenus=[{
            "type": "buttons", "direction": "left", "showactive": False, "x": 0, "xanchor": "left", "y": 0,
            "yanchor": "top", "pad": {"t": 62}, "bgcolor": "rgba(128,128,128,0.18)", "borderwidth": 0, "buttons": [
                {"label": "Play", "method": "animate", "args": [None, play]},
                {"label": "Pause", "method": "animate", "args": [[None], still]},
            ],
        }],
        sliders=[{
            "active": len(names) - 1, "x": 0.2, "len": 0.8, "y": 0, "yanchor": "top", "pad": {"t": 40},
            "minorticklen": 0, "ticklen": 0,
            "currentvalue": {"prefix": "t = ", "xanchor": "left", "font": {"color": "#808894", "size": 13}},
            "font": {"color": "rgba(0,0,0,0)", "size": 1}, "bgcolor": "rgba(128,128,128,0.3)", "borderwidth": 0,
            "steps": [{"label": name, "method": "animate", "args": [[name], still]} for name in names],
        }],
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


def _samplers_words(samplers: Sequence[PathSampler]) -> str:
    return ", ".join(dict.fromkeys(sampler.words or "sampler not recorded" for sampler in samplers))


def _null_words(results: Results) -> str:
    return f"the baseline ({results.design.baseline_label})" if results.design.baseline else "not recorded"
