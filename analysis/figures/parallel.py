"""Parallel coordinates: a line a run through the levels of its factors to what it cost and scored, phases apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

from analysis import formats
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.levels import OWN_PATH
from analysis.results import Results
from analysis.spent import evaluations_of
from analysis.tables import at, budget_label, context
from analysis.tables_runs import run_facets, run_name, search_score, searched_at

_AXES = 9  # levels that are drawn, beside cost and score
_ABSENT = "absent"  # a parameter that does nothing beside the others
_BINS = 5  # of the score: a colour each
_MARKED = 200  # runs whose crossings get a dot; of more the dots would hide the lines, and slow the page
_JITTER = 0.07  # of the distance between levels, so that lines through the same levels can be told apart


@dataclass(frozen=True)
class _Run:
    name: str
    seed: int
    levels: dict[str, str]
    evaluations: float
    score: float


@dataclass(frozen=True)
class _Axis:
    """A coordinate: where each run crosses it, and its ticks (height, label)."""

    label: str
    heights: list[float | None]
    texts: list[str]
    ticks: list[tuple[float, str]]


def parallel_panel(results: Results, phase: str) -> Panel:
    """The completed runs of a phase."""
    key, title = f"parallel_{phase}", f"Every run of the {phase}"
    runs = _runs(results, phase)
    where = budget_label(results.headline) if phase == "ablation" else searched_at(results)
    axes = _axes(results, runs, where if where == budget_label(results.headline) else "at own NFE")
    if len(runs) < 2 or len(axes) < 3:
        text = (
            f"Parallel coordinates of the {phase} need two completed runs with a score and two things that vary "
            f"among them."
        )
        return Panel(key, title, text)
    figure = go.Figure()
    order = np.argsort(np.argsort([run.score for run in runs]))
    for index in reversed(range(_BINS)):  # the best lie on top
        own = [i for i, rank in enumerate(order) if rank * _BINS // len(runs) == index]
        if own:
            _add(figure, results, runs, axes, own, index, phase)
    _ticks(figure, axes)
    style.finish(figure, 440)
    figure.update_xaxes(
        tickvals=list(range(len(axes))), ticktext=[axis.label.replace(" (", "<br>(") for axis in axes], showgrid=False,
        range=[-0.1 - 0.055 * len(axes) ** 0.5 * max(len(text) for _, text in axes[0].ticks) ** 0.75, len(axes) - 0.8],
        ticks="", tickangle=0,
    )  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.06, 1.06])
    figure.update_layout(meta={"least": (130 if len(axes) < 9 else 104) * len(axes)})
    claim = (
        "one run a line, on the test split" if phase == "ablation"
        else "Optimistic (validation, the best of many tries), no claim rests on it"
    )  # fmt: skip
    reference = f" {context(results, results.settings)}" if phase == "ablation" else ""
    caption = (
        f"{formats.plural(len(runs), 'completed run')} of the {phase}: {claim}. {results.metric.label} "
        f"{where}, lower is better; colours: fifths of the runs by score. Levels are spread a "
        f"little, so that lines can be told apart. Click a point to see its run.{reference}"
    )
    return Panel(key, title, caption, figure)


def _runs(results: Results, phase: str) -> list[_Run]:
    settings = {setting.digest: setting for setting in results.settings}
    found = []
    for run in results.runs[phase]:
        if run["status"] != "completed":
            continue
        setting = settings.get(str(run["digest"])) if phase == "ablation" else None
        if setting is not None:
            held = results.score(setting)
            score = held.test.get(int(run["seed"]), math.inf) if held is not None else math.inf
        else:
            score = search_score(results, run)
        if not math.isfinite(score):
            continue
        spent = evaluations_of(run)
        facets = run_facets(results, run, setting)
        method = (setting.arm or facets["method"]) if setting is not None else facets["method"]
        known = set(results.level_names.values())
        levels = {"method": method, **{name: level for name, level in facets.items() if name in known}}
        found.append(_Run(run_name(run), int(run["seed"]), levels, float(spent), float(score)))
    return found


def _axes(results: Results, runs: Sequence[_Run], where: str) -> list[_Axis]:
    if not runs:
        return []
    # Whether there is a path of its own says which method it is.
    first = [] if OWN_PATH in results.parameters else ["method"]
    names = [*first, *dict.fromkeys(results.level_names.values())]
    varied = [name for name in names if len({run.levels.get(name) for run in runs}) > 1]
    axes = [_level_axis(name, [run.levels.get(name) for run in runs]) for name in varied[:_AXES]]
    costs = [run.evaluations for run in runs]
    if min(costs) > 0 and max(costs) > 1.02 * min(costs):
        axes.append(_numbers("training evaluations", costs, formats.count))
    label = f"{results.metric.short} {where}"
    return [*axes, _numbers(label, [run.score for run in runs], formats.number)]


def _level_axis(name: str, values: Sequence[str | None]) -> _Axis:
    known: list[str | None] = [*sorted({value for value in values if value is not None}, key=_natural)]
    known += [None] if None in values else []
    step = 1 / max(1, len(known) - 1)
    met: dict[str | None, int] = {}
    heights: list[float | None] = []
    for value in values:
        turn = met[value] = met.get(value, -1) + 1
        # The golden ratio spreads any number of runs evenly.
        heights.append(known.index(value) * step + _JITTER * min(step, 0.5) * ((turn * 0.618) % 1 - 0.5))
    every = max(1, math.ceil(len(known) / 12))
    ticks = [(i * step, _short(level)) for i, level in enumerate(known) if i % every == 0]
    return _Axis(name, heights, [_short(value) for value in values], ticks)


def _numbers(name: str, values: Sequence[float], text: Any) -> _Axis:
    log = min(values) > 0 and max(values) > 3 * min(values)
    placed = [math.log(value) if log else value for value in values]
    low, high = min(placed), max(placed)
    width = (high - low) or 1.0
    ticks = [low + width * part / 4 for part in range(5)]
    return _Axis(
        name, [(value - low) / width for value in placed], [text(value) for value in values],
        [((tick - low) / width, text(math.exp(tick) if log else tick)) for tick in ticks],
    )  # fmt: skip


def _add(figure: go.Figure, results: Results, runs: Sequence[_Run], axes: Sequence[_Axis], own: Sequence[int],
         index: int, phase: str) -> None:  # fmt: skip
    x: list[float | None] = []
    y: list[float | None] = []
    hover, known = [], []
    for i in own:
        one = style.point(runs[i].name, seed=runs[i].seed)
        whole = "<br>".join(f"{axis.label}: {axis.texts[i]}" for axis in axes)
        for place, axis in enumerate(axes):
            x.append(place)
            y.append(axis.heights[i])
            hover.append(whole if place == len(axes) - 1 else f"{axis.label}: {axis.texts[i]}")
            known.append(one)
        x.append(None)
        y.append(None)
        hover.append("")
        known.append(one)
    colour = sample_colorscale(style.SEQUENTIAL, [0.84 - 0.78 * index / (_BINS - 1)])[0]
    scores = [runs[i].score for i in own]
    name = f"{formats.number(min(scores))} to {formats.number(max(scores))}"
    figure.add_scatter(
        x=x, y=y, mode="lines+markers" if len(runs) <= _MARKED else "lines", name=name, opacity=0.75,
        line={"color": colour, "width": 1.4},
        marker={"size": 5, "color": colour}, hovertext=hover, hoverinfo="text", customdata=known, connectgaps=False,
        meta={"phase": phase, **at(results.headline), **results.place},
    )  # fmt: skip


def _ticks(figure: go.Figure, axes: Sequence[_Axis]) -> None:
    line = {"color": style.FLOOR_COLOUR, "width": 1.2}
    for place in range(len(axes)):
        figure.add_shape(type="line", x0=place, x1=place, y0=-0.02, y1=1.02, line=line, layer="below")
    figure.add_scatter(
        x=[place for place, axis in enumerate(axes) for _ in axis.ticks],
        y=[height for axis in axes for height, _ in axis.ticks], mode="text", textposition="middle left",
        text=[f"{text} " for axis in axes for _, text in axis.ticks], textfont={"size": 11}, showlegend=False,
        hoverinfo="skip", name="ticks",
    )  # fmt: skip


def _short(level: str | None) -> str:
    text = _ABSENT if level is None else level
    return text if len(text) < 26 else f"{text[:24]}…"


def _natural(value: str) -> tuple[int, float, str]:
    try:
        return (0, float(value), value)
    except ValueError:
        return (1, 0.0, value)
