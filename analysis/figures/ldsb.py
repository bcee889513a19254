"""Figures of LDSB: learned paths beside the original, quality against NFE and teacher distance, random paths."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import formats
from analysis.artifacts import Artifacts
from analysis.figures import curves, style
from analysis.figures.ldsb_random import random_panel
from analysis.figures.style import Panel
from analysis.ldsb.paths import drawn_ways, read_path
from analysis.ldsb.ways import Denoiser, Way, context, facets
from analysis.quality import Score
from analysis.statistics import Interval, deviation

_LONG = 40  # calls of Heun's method from which on its score stands for the converged flow
_ANY = 1_000_000  # calls: a budget that nothing exceeds
_WAYS = 6  # whose paths, or markers with names, are drawn
_COEFFICIENTS = (("image", "a"), ("noise", "b"), ("log_snr", "log-SNR − original's"))


def ldsb_panels(denoisers: Sequence[Denoiser], artifacts: Artifacts) -> list[Panel]:
    """Every figure that the records can fill; a sentence where no run kept its path."""
    panels = []
    for denoiser in denoisers:
        panels += [_against_nfe(denoiser), _against_teacher(denoiser), _paths(denoiser, artifacts)]
    return [panel for panel in [*panels, random_panel(denoisers)] if panel is not None]


def _against_nfe(denoiser: Denoiser) -> Panel | None:
    results = denoiser.results
    most = max(len(way.settings) for way in denoiser.ways)
    # With one N a way is no line: the most notable are markers with their names.
    ways = [way for way in denoiser.ways if len(way.settings) == most] if most > 1 else drawn_ways(denoiser, _WAYS)
    lines = [
        (way.label, facets(results, next(iter(way.settings.values()))),
         [(n, way.settings[n], score) for n, score in _scores(denoiser, way)])
        for way in ways
    ]  # fmt: skip
    own = denoiser.own
    if own is not None:
        lines += [
            (f"other sampler: {formats.sampler(s)}", facets(results, own),
             [(n, own, score) for n, score in _sampled(denoiser, s)])
            for s in denoiser.samplers()
        ]  # fmt: skip
    lines = [line for line in lines if line[2]]
    if not lines:
        return None
    figure = go.Figure()
    single = [
        curves.Line(name, meta, [(n, setting.digest, score) for n, setting, score in scores])
        for name, meta, scores in lines if len(scores) == 1
    ]  # fmt: skip
    curves.add_markers(figure, single, len(lines) - len(single), denoiser.steps)
    for index, (name, meta, scores) in enumerate(line for line in lines if len(line[2]) > 1):
        intervals = [score.interval for *_, score in scores]
        figure.add_scatter(
            x=[n for n, *_ in scores], y=[interval.mean for interval in intervals], mode="lines+markers", name=name,
            error_y=style.error_bars(intervals), line=style.line(index), marker=style.marker(index, 8), meta=meta,
            hoverinfo="text",
            hovertext=[f"{name}<br>NFE ≤ {n}<br>{formats.with_n(score.interval)}" for n, _, score in scores],
            customdata=[style.point(setting.digest, n, y=score.interval) for n, setting, score in scores],
        )  # fmt: skip
    teacher = _converged(denoiser)
    levels = [("floor (real against real)", results.floor, "dash")]
    levels += [(f"teacher: Heun, {teacher.counted} calls", teacher.interval, "dot")] if teacher else []
    for name, interval, dash in levels:
        if interval.n:
            _level(figure, denoiser.steps, interval, name, dash)
    style.finish(figure, 460)
    style.nfe_axis(figure, denoiser.steps)
    shown = [score.interval.mean for _, _, scores in lines for *_, score in scores]
    style.value_axis(figure, results.metric.label, [results.floor.mean, *shown])
    left = len(denoiser.ways) - len(ways)
    text = [
        "Mean over seeds on the test split; bars: 95 % t intervals. A path has its own N; other samplers take the time "
        "grid that validation chose.",
        f"Tried at fewer NFE, and only in the table: {formats.plural(left, 'way')}." if left else "",
        "" if teacher else f"No run sampled the denoiser's flow with {_LONG} calls or more, so its own score is not "
        "drawn.",
        context(results, denoiser.scores),
    ]  # fmt: skip
    title = f"{results.metric.short} against NFE by way of fitting: {denoiser.label}"
    return Panel(f"ldsb_nfe_{denoiser.slug}", title, " ".join(part for part in text if part), figure)


def _level(figure: go.Figure, steps: Sequence[int], interval: Interval, name: str, dash: str) -> None:
    across = [min(steps), max(steps)] if len(steps) > 1 else [0.8 * steps[0], 1.25 * steps[0]]
    figure.add_scatter(
        x=across, y=[interval.mean] * 2, mode="lines", name=name, hoverinfo="text",
        hovertext=f"{name}: {formats.interval(interval)}",
        line={"color": style.FLOOR_COLOUR, "dash": dash, "width": 2},
    )  # fmt: skip


def _against_teacher(denoiser: Denoiser) -> Panel | None:
    results = denoiser.results
    figure = go.Figure()
    shown: list[float] = []
    lines = [
        (way.label, facets(results, next(iter(way.settings.values()))),
         [(n, way.settings[n], score) for n, score in _scores(denoiser, way)])
        for way in denoiser.ways
    ]  # fmt: skip
    own = denoiser.own
    if own is not None:
        lines += [
            (f"other sampler: {formats.sampler(s)}", facets(results, own),
             [(n, own, score) for n, score in _sampled(denoiser, s)])
            for s in denoiser.samplers()
        ]  # fmt: skip
    for index, (name, meta, points) in enumerate(lines):
        placed = [(n, denoiser.distance(setting, score), score.interval) for n, setting, score in points]
        known = [
            style.point(setting.digest, n, x=distance, y=interval)
            for (n, setting, _), (_, distance, interval) in zip(points, placed, strict=True) if distance.n
        ]  # fmt: skip
        placed = [item for item in placed if item[1].n]
        if not placed:
            continue
        shown += [interval.mean for _, _, interval in placed]
        figure.add_scatter(
            x=[distance.mean for _, distance, _ in placed], y=[interval.mean for _, _, interval in placed], name=name,
            error_x=style.error_bars([distance for _, distance, _ in placed], "linear"),
            error_y=style.error_bars([interval for _, _, interval in placed]), mode="markers+text",
            text=[str(n) for n, _, _ in placed], textposition="top center", textfont={"size": 10},
            marker=style.marker(index, 9), meta=meta, hoverinfo="text", customdata=known,
            hovertext=[
                f"{name}, NFE {n}<br>{results.metric.short} {formats.with_n(interval)}<br>"
                f"teacher distance {formats.interval(distance)}" for n, distance, interval in placed
            ],
        )  # fmt: skip
    if not shown:
        return None
    if results.floor.n:
        figure.add_hline(y=results.floor.mean, line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5})
    style.finish(figure, 480)
    figure.update_xaxes(title_text="teacher distance: root mean square to the converged flow's images")
    style.value_axis(figure, results.metric.label, [results.floor.mean, *shown])
    caption = (
        "Each point is a way at the NFE beside it, mean over seeds on the test split, bars: 95 % t intervals; dashed: "
        "floor. Lower left is better in both; a way further down but further to the right makes images that score "
        f"well but are not those of its denoiser. {context(results, denoiser.scores)}"
    )
    title = f"{results.metric.short} against teacher distance: {denoiser.label}"
    return Panel(f"ldsb_teacher_{denoiser.slug}", title, caption, figure)


def _paths(denoiser: Denoiser, artifacts: Artifacts) -> Panel:
    """Rows N, columns a, b and what the log-SNR changed by; the original dashed."""
    results = denoiser.results
    title = f"Learned paths beside the original: {denoiser.label}"
    key = f"ldsb_path_{denoiser.slug}"
    ways = drawn_ways(denoiser, _WAYS)
    kept = {
        (index, n): path for index, way in enumerate(ways) for n, setting in way.settings.items()
        if (path := read_path(results, artifacts, setting)) is not None
    }  # fmt: skip
    steps = [n for n in denoiser.steps if any(number == n for _, number in kept)]
    if not steps:
        return Panel(
            key, title, f"No run with the {denoiser.label} denoiser kept its path (artifacts/…/ratio_path.npz)."
        )
    names = [f"{label}, N = {n}" for n in steps for _, label in _COEFFICIENTS]
    height = 80 + 240 * len(steps)
    figure = make_subplots(
        len(steps), 3, subplot_titles=names, horizontal_spacing=0.07, vertical_spacing=80 / height
    )  # fmt: skip
    named: set[int] = set()
    grids: set[tuple[int, str]] = set()
    for (index, n), path in sorted(kept.items()):
        way, row = ways[index], steps.index(n) + 1
        meta = facets(results, way.settings[n], n)
        for column, (name, _) in enumerate(_COEFFICIENTS, 1):
            if name != "log_snr" and (n, way.grid) not in grids:
                _dashed(figure, path.arrays, name, (row, column), not grids and column == 1)
            with np.errstate(invalid="ignore"):  # both are infinite at an end of the path
                values = path.arrays[name] - (path.arrays["original_log_snr"] if name == "log_snr" else 0)
            known = _known(way.settings[n].digest, path.seeds, path.arrays["times"], _shown(values))
            _line(figure, path.arrays["times"].mean(0), values, (way.label, index), index not in named, (row, column),
                  meta, known)  # fmt: skip
            named.add(index)
        grids.add((n, way.grid))
    style.finish(figure, height, titled=True)
    figure.update_xaxes(title_text="t", row=len(steps))
    caption = (
        f"The nodes of the path x = a x₀ + b ε. Means over seeds, bars: one standard deviation over seeds; dashed: "
        f"the original path on each node grid. Right: zero is the original's log-SNR, above it the node holds less "
        f"noise than the original's. The paper's procedure and the best on validation come first, at most "
        f"{_WAYS} ways are drawn. {context(results, [denoiser.score(way, n) for way in ways for n in way.settings])}"
    )
    return Panel(key, title, caption, figure)


def _dashed(figure: go.Figure, arrays: dict[str, np.ndarray], name: str, place: tuple[int, int], legend: bool) -> None:
    figure.add_scatter(
        x=arrays["original_times"], y=_shown(arrays[f"original_{name}"]), mode="lines+markers", name="original",
        legendgroup="original", showlegend=legend, line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5},
        marker={"color": style.FLOOR_COLOUR, "size": 4}, row=place[0], col=place[1],
        hovertemplate="original, t = %{x:.3g}: %{y:.5f}<extra></extra>",
    )  # fmt: skip


def _line(figure: go.Figure, times: np.ndarray, values: np.ndarray, way: tuple[str, int], legend: bool,
          place: tuple[int, int], meta: dict[str, str], known: list[dict[str, Any]]) -> None:  # fmt: skip
    label, index = way
    values = _shown(values)
    spread = values.std(0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    figure.add_scatter(
        x=times, y=values.mean(0), mode="lines+markers", name=label, legendgroup=label, showlegend=legend,
        error_y={"type": "data", "array": np.nan_to_num(spread), "thickness": 1.2, "width": 3},
        line=style.line(index, 1.6), marker=style.marker(index, 5), row=place[0], col=place[1], meta=meta,
        customdata=known,
        hovertemplate=f"{label}, t = %{{x:.3g}}: %{{y:.5f}}<extra></extra>",
    )  # fmt: skip


def _known(digest: str, seeds: Sequence[int], times: np.ndarray, values: np.ndarray) -> list[dict[str, Any]]:
    """For each node its times and values by seed; a node that is infinite is the same for all of them."""
    found = []
    for node in range(times.shape[1]):
        x, y = (
            deviation(dict(zip(seeds, held[:, node].tolist(), strict=True))) if np.isfinite(held[:, node]).all()
            else None
            for held in (times, values)
        )  # fmt: skip
        found.append(style.point(digest, x=x, y=y))
    return found


def _scores(denoiser: Denoiser, way: Way) -> list[tuple[int, Score]]:
    found = [(n, denoiser.score(way, n)) for n in sorted(way.settings)]
    return [(n, score) for n, score in found if score is not None and score.test]


def _sampled(denoiser: Denoiser, sampler: str) -> list[tuple[int, Score]]:
    found = [(n, denoiser.sampled(sampler, n)) for n in denoiser.steps]
    return [(n, score) for n, score in found if score is not None and score.test]


def _converged(denoiser: Denoiser) -> Score | None:
    """Heun's method on the denoiser's flow with most calls, if these are many."""
    if denoiser.own is None:
        return None
    score = denoiser.results.scores_with([_ANY], "heun").get(denoiser.own.digest, _ANY)
    return score if score is not None and score.counted >= _LONG and score.test else None


def _shown(values: np.ndarray) -> np.ndarray:
    """Infinite values (a log-SNR at an end of the path) leave a gap."""
    return np.where(np.isfinite(values), values, np.nan)
