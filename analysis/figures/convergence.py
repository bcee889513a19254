"""Quality on the way: the primary metric on validation against the network evaluations spent on training."""

import math

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import formats
from analysis.design import Setting
from analysis.families import headliners
from analysis.figures import curves, style
from analysis.figures.style import Panel
from analysis.quality import TRAINING
from analysis.results import Results
from analysis.statistics import Interval, mean_interval
from analysis.tables_measures import completed, of_digests

_PLACE = ["sampler", "grid", "nfe"]


def convergence_panel(results: Results) -> Panel:
    """Validation quality against evaluations, one line a setting with a band over seeds."""
    title = f"{results.metric.short} on validation during training"
    rows = _rows(results)
    own = of_digests(rows)
    found = [(setting, curve(completed(results, setting, own(setting.digest)))) for setting in headliners(results)]
    found = [(setting, points) for setting, points in found if points]
    if not found:
        text = "No run of the ablation measured its quality during training (rows of the stage “training”)."
        return Panel("convergence", title, text)
    figure = go.Figure()
    for index, (setting, points) in enumerate(found):
        _add(figure, results, setting, points, index)
    if results.floor.n:
        figure.add_hline(y=results.floor.mean, line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5})
    style.finish(figure, 440)
    figure.update_xaxes(type="log", title_text="network evaluations spent on training, simulation included")
    shown = [results.floor.mean, *(interval.mean for _, points in found for _, interval in points)]
    style.value_axis(figure, results.metric.label, shown)
    counts = sorted({interval.n for _, points in found for _, interval in points})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds = ", ".join(str(seed) for seed in results.seeds)
    floor = f"dashed: floor {formats.number(results.floor.mean)}" if results.floor.n else "no floor was recorded"
    null = f"the null is the line of the baseline ({results.design.baseline_label})"
    caption = (
        f"{results.metric.label} on the validation split, {_where(rows)}; mean over seeds, bands: 95 % t intervals; "
        f"n = {n} (seeds {seeds}); {floor}; {null if results.design.baseline else 'no null was run'}. Measurements on "
        f"the way use fewer samples than the final ones and choose nothing."
    )
    return Panel("convergence", title, caption, figure)


def curve(rows: pd.DataFrame) -> list[tuple[float, Interval]]:
    """(mean evaluations, interval of the metric) of each measurement; seeds are matched by step, else by order."""
    if not len(rows):
        return []
    rows = rows.sort_values("step")
    # A setting may be measured at several places; one line needs one.
    places = rows[_PLACE].astype(str).agg("|".join, axis=1)
    rows = rows[places == places.mode().iloc[0]]
    steps = {tuple(own["step"]) for _, own in rows.groupby("seed")}
    key = rows["step"] if len(steps) == 1 else rows.groupby("seed").cumcount()
    points = []
    for _, own in rows.groupby(key):
        held = own.groupby("seed")["value"].mean()
        values = {int(str(seed)): float(value) for seed, value in held.items() if math.isfinite(value)}
        if values:
            points.append((float(np.mean(own["step"].astype(float))), mean_interval(values)))
    return points


def _rows(results: Results) -> pd.DataFrame:
    metrics = results.collected.select([results.metric.name])
    chosen = metrics[metrics["stage"].fillna("") == TRAINING]
    chosen = chosen[(chosen["phase"] == "ablation") & (chosen["role"] == "model") & (chosen["split"] == "validation")]
    return chosen[chosen["step"].notna() & (chosen["step"] > 0)]


def _where(rows: pd.DataFrame) -> str:
    samplers = sorted({formats.level(value) for value in rows["sampler"].dropna()})
    calls = sorted({int(value) for value in rows["nfe"].dropna()})
    text = f"NFE {', '.join(str(value) for value in calls)}" if calls else "without sampling"
    return f"{' and '.join(samplers)}, {text}" if samplers else text


def _add(figure: go.Figure, results: Results, setting: Setting, points: list[tuple[float, Interval]],
         index: int) -> None:  # fmt: skip
    known = [style.point(setting.digest, y=interval) for _, interval in points]
    meta = results.facets(setting)
    limits = [(x, interval, one) for (x, interval), one in zip(points, known, strict=True)]
    curves.add_band(figure, setting.label, meta, limits, index)
    figure.add_scatter(
        x=[x for x, _ in points], y=[interval.mean for _, interval in points], mode="lines+markers",
        name=setting.label, legendgroup=setting.label, line=style.line(index), marker=style.marker(index, 6),
        meta=meta, hoverinfo="text", customdata=known,
        hovertext=[f"{setting.label}<br>{formats.count(x)} evaluations<br>{formats.with_n(i)}" for x, i in points],
    )  # fmt: skip
