"""Figures of the localised coupling: what is left of a real sample that was carried to t and back."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import formats
from analysis.artifacts import Artifacts
from analysis.families import headliners
from analysis.figures import style
from analysis.figures.kept import Kept, kept
from analysis.figures.samples import png, tile
from analysis.figures.style import Panel, Strip
from analysis.results import Results
from analysis.statistics import Interval
from analysis.tables_measures import LOCALISED, completed, localised_time, measure_rows, over_seeds

_FAR = 20
_DEFINITION = (
    "Mean |x̂₀ − x₀|² of real samples that were carried to t and back, over that of two different real samples: 0 (the "
    "floor) gives each sample back, 1 (the null) is an unrelated one."
)


def localised_panels(results: Results, artifacts: Artifacts) -> list[Panel]:
    """Distance against t for all settings, and the samples of one of them."""
    return [_distances(results), _examples(results, artifacts)]


def _distances(results: Results) -> Panel:
    title = "Localised coupling: distance against t"
    times = sorted((name for name in results.collected.metric_names if name.startswith(LOCALISED)), key=localised_time)
    rows = measure_rows(results, times)
    figure = go.Figure()
    shown: list[Interval] = []
    settings = [setting for setting in headliners(results) if (rows["digest"] == setting.digest).any()]
    for index, setting in enumerate(settings):
        own = completed(results, setting, rows)
        points = [(localised_time(name), over_seeds(own[own["metric"] == name])) for name in times]
        points = [(t, interval) for t, interval in points if interval.n]
        shown += [interval for _, interval in points]
        figure.add_scatter(
            x=[t for t, _ in points], y=[interval.mean for _, interval in points], mode="lines+markers",
            name=setting.label, line=style.line(index), marker=style.marker(index, 8), meta=results.facets(setting),
            error_y=style.error_bars([interval for _, interval in points], "log"), hoverinfo="text",
            hovertext=[f"{setting.label}, t = {t:g}<br>{formats.with_n(interval)}" for t, interval in points],
            customdata=[style.point(setting.digest, y=interval) for _, interval in points],
        )  # fmt: skip
    if not shown:
        return Panel("localised", title, "No run of the ablation recorded localised distances.")
    figure.add_hline(y=1, line={"color": style.FLOOR_COLOUR, "dash": "dot", "width": 1.5})
    style.finish(figure, 420)
    figure.update_xaxes(title_text="t that the samples were carried to", range=[0, 1.04])
    name, means = "distance of what comes back", [interval.mean for interval in shown]
    if max(means) > _FAR and style.positive(means):  # a method that runs away would press the others flat
        style.value_axis(figure, name, [1.0, *means])
    else:
        figure.update_yaxes(title_text=name, rangemode="tozero")
    counts = sorted({interval.n for interval in shown})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds = ", ".join(str(seed) for seed in results.seeds)
    caption = f"{_DEFINITION} Mean and 95 % t interval over seeds; dotted: the null. n = {n} (seeds {seeds})."
    return Panel("localised", title, caption, figure)


def _examples(results: Results, artifacts: Artifacts) -> Panel:
    title = "Localised coupling: samples carried to t and back"
    found = kept(results, artifacts, "localised.npz", ["t", "originals", "returned"], 1)
    usable = [item for item in found if _fits(item[2])]
    if not usable:
        return Panel("localised_examples", title, "No run kept samples that were carried to t and back.")
    setting, seed, arrays = usable[0]
    caption = (
        f"“{setting.label}”, seed {seed} (n = 1): the first {len(arrays['originals'])} real samples of the test split "
        f"and what came back of each; distance as in the figure of distances (0: the floor, 1: the null)."
    )
    if arrays["originals"].ndim == 2:
        figure = _scatter(results, usable[0])
        return Panel("localised_examples", title, f"{caption} Circles: originals; lines: to what came back.", figure)
    pictures = []
    for index, label in enumerate(_labels(arrays)):
        grid = tile(np.concatenate([arrays["originals"], arrays["returned"][index]]), len(arrays["originals"]))
        if grid is not None:
            pictures.append((label, png(grid), grid.shape[1]))
    if not pictures:
        return Panel("localised_examples", title, "The samples that were carried to t and back are no pictures.")
    facets = {**results.facets(setting), "seed": str(seed)}
    strip = Strip(f"{setting.label}, seed {seed}", pictures, facets, True, f"{setting.digest}-{seed}")
    return Panel("localised_examples", title, f"{caption} Above: originals; below: what came back.", strips=[strip])


def _fits(arrays: dict[str, np.ndarray]) -> bool:
    originals, returned = arrays["originals"], arrays["returned"]
    return returned.ndim == originals.ndim + 1 and returned.shape == (len(arrays["t"]), *originals.shape)


def _labels(arrays: dict[str, np.ndarray]) -> Sequence[str]:
    distances = arrays.get("distance", np.full(len(arrays["t"]), np.nan))
    return [f"t = {t:g}, distance {formats.number(float(d))}" for t, d in zip(arrays["t"], distances, strict=True)]


def _scatter(results: Results, item: Kept) -> go.Figure:
    setting, seed, arrays = item
    known = [style.point(f"{setting.digest}-{seed}", seed=seed)]
    originals, labels = arrays["originals"].astype(float)[:, :2], _labels(arrays)
    figure = make_subplots(
        1, len(labels), subplot_titles=[label.replace(", ", "<br>") for label in labels], shared_xaxes="all",
        shared_yaxes="all", horizontal_spacing=0.015,
    )  # fmt: skip
    for column, returned in enumerate(arrays["returned"].astype(float)[..., :2], 1):
        for index, (start, end) in enumerate(zip(originals, returned, strict=True)):
            figure.add_scatter(
                x=[start[0], end[0]], y=[start[1], end[1]], mode="lines+markers", row=1, col=column, showlegend=False,
                line={"color": style.colour(index), "width": 1.5}, hoverinfo="skip", meta=results.facets(setting),
                customdata=known,
                marker={"color": style.colour(index), "size": [9, 5], "symbol": ["circle-open", "circle"]},
            )  # fmt: skip
    style.finish(figure, 300, legend=False, titled=True)
    figure.update_layout(margin={"t": 56})
    return figure
