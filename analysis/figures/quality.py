"""Figures of the ablation: quality against NFE, the Pareto front, the effect of each factor."""

import textwrap
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import formats
from analysis.design import Factor, Setting
from analysis.figures import curves, groups, style
from analysis.figures.style import Panel
from analysis.ldsb.ways import METHOD as LDSB
from analysis.pareto import AGAIN, Candidate, candidates, pareto_front
from analysis.quality import Score
from analysis.recipes import method_words, recipe
from analysis.results import Results
from analysis.tables import TRADE, budget_label, choice, context

_LINES = 14  # that a figure by recipe holds
_ROOM = 150  # characters of level names beside one another, over all factors
_NONE = "The ablation has no completed run yet."
_OWN_NFE = "Every path of LDSB has a number of calls of its own: figures against NFE stand in the section on LDSB."
_NO_NFE = "The primary metric needs no sampling: there is no NFE to plot it against."


def nfe_panels(results: Results) -> list[Panel]:
    """Quality against NFE: the front of all settings, and lines of what was measured at several NFE.

    Where most settings have one NFE alone, the front is the main figure: lines are left to what has several.
    """
    scored = [setting for setting in results.settings if _points(results, setting)]
    single = sum(len(_points(results, setting)) == 1 for setting in scored)
    if results.budgets != (0,) and 2 * single > len(scored):
        return [pareto_panel(results), *_by_recipe(results, scored)]
    return [*curve_panels(results), pareto_panel(results)]


def curve_panels(results: Results) -> list[Panel]:
    """Quality against NFE: one panel for the methods, one for each factor."""
    if results.budgets == (0,):
        return [Panel("curves", f"{results.metric.short} against NFE", _NO_NFE)]
    panels = []
    arms = [setting for setting in results.arm_settings() if results.interval(setting).n]
    if arms and not groups.has_own_nfe(arms):
        panels.append(_curves(results, "curves_arms", "Methods", arms))
    panels += groups.group_panels(results)
    for factor in results.design.factors:
        settings = results.factor_settings(factor.path)
        if len(settings) > 1:
            panels.append(_curves(results, f"curves_{factor.path}", factor.label, settings, factor.path))
    scored = [setting for setting in results.settings if results.interval(setting).n]
    if not panels and groups.has_own_nfe(scored):
        return [Panel("curves", f"{results.metric.short} against NFE", _OWN_NFE)]
    if not panels and scored:
        panels.append(_curves(results, "curves", "Settings", scored[:12]))
    return panels or [Panel("curves", f"{results.metric.short} against NFE", _NONE)]


def _curves(results: Results, key: str, title: str, settings: Sequence[Setting], factor: str | None = None) -> Panel:
    title = f"{results.metric.short} against NFE: {title}"
    settings = [setting for setting in settings if any(results.interval(setting, n).n for n in results.budgets)]
    if not settings:
        return Panel(key, title, _NONE)
    lines = [
        curves.Line(_level_name(setting, factor), results.facets(setting), _scores(results, setting))
        for setting in settings
    ]
    return _drawn(results, key, title, lines, settings)


def _drawn(results: Results, key: str, title: str, lines: Sequence[curves.Line], settings: Sequence[Setting],
           note: str = "") -> Panel:  # fmt: skip
    """Lines of what has several NFE, a marker with its name of what has one."""
    figure = go.Figure()
    clipped = False
    several = [line for line in lines if len(curves.distinct(line.scores)) > 1]
    for index, line in enumerate(several):
        clipped |= curves.add_curve(figure, line, index)
    curves.add_markers(figure, [line for line in lines if line not in several], len(several), results.budgets)
    curves.add_floor(figure, results)
    style.finish(figure)
    style.nfe_axis(figure, results.budgets)
    shown = [score.interval.mean for line in lines for *_, score in line.scores if score.interval.n]
    style.value_axis(figure, results.metric.label, [results.floor.mean, *shown])
    caption = (
        f"Mean over seeds on the test split; bands: 95 % t intervals. {choice(results)} {context(results, settings)}"
    )
    return Panel(key, title, caption + note + (curves.CLIPPED if clipped else "") + style.unnamed(figure), figure)


def _by_recipe(results: Results, settings: Sequence[Setting]) -> list[Panel]:
    """A line a recipe: a setting with several NFE, or the paths of one way that differ in N and the size of its KAN."""
    lines: dict[tuple[str, str], curves.Line] = {}
    for setting in settings:
        own = setting.digest if len(_points(results, setting)) > 1 else ""
        words = method_words(results.design, setting, size=False)
        grid = formats.level(setting.leaves.get("method.grid")) if setting.method == LDSB else ""
        line = lines.setdefault((own, words + grid), curves.Line(f"{words}, {grid}" if grid else words,
                                                                 results.facets(setting)))  # fmt: skip
        line.scores += _points(results, setting)
    for line in lines.values():
        line.scores = curves.best_at_each(line.scores)
    several = [line for line in lines.values() if len(curves.distinct(line.scores)) > 1]
    if not several:
        return []
    left = len(lines) - len(several)
    note = (
        " Of paths that differ in the size of their KAN alone each point is the best on validation at that NFE."
        + (f" {formats.plural(left, 'recipe')} with one NFE stand in the front alone." if left else "")
    )  # fmt: skip
    title = f"{results.metric.short} against NFE, by recipe"
    return [_drawn(results, "curves", title, several[:_LINES], settings, note)]


def _scores(results: Results, setting: Setting) -> list[tuple[int, str, Score]]:
    scored = [(n, setting.digest, results.score(setting, n)) for n in results.budgets]
    return [(n, digest, score) for n, digest, score in scored if score is not None]


def _points(results: Results, setting: Setting) -> list[tuple[int, str, Score]]:
    """A setting's scores on test, one for each number of calls that it really takes."""
    return curves.distinct([item for item in _scores(results, setting) if item[2].test])


def _level_name(setting: Setting, factor: str | None) -> str:
    if factor is None:
        label = setting.label
    else:
        label = formats.level(setting.level(factor)) + (" (centre)" if setting.is_centre else "")
    return f"{label} (baseline)" if setting.is_baseline and not setting.is_centre else label


def pareto_panel(results: Results) -> Panel:
    """Quality against NFE of all settings, the front drawn through."""
    title = "Pareto front of quality and NFE"
    front = pareto_front(results)
    if not front:
        return Panel("pareto", title, _NO_NFE if results.budgets == (0,) else _NONE)
    figure = go.Figure()
    on_front = {candidate.setting.digest for candidate in front}
    by_setting: dict[str, list[Candidate]] = {}
    for candidate in candidates(results):
        by_setting.setdefault(candidate.setting.digest, []).append(candidate)
    for index, setting in enumerate(results.settings):
        placed = sorted(by_setting.get(setting.digest, []), key=lambda candidate: candidate.budget)
        if not placed:
            continue
        scores = [candidate.score for candidate in placed]
        marks = {**style.marker(index, 8), "opacity": 0.95 if setting.digest in on_front else 0.45}
        figure.add_scatter(
            x=[score.counted for score in scores], y=[score.interval.mean for score in scores], mode="markers",
            name=setting.label, marker=marks, meta=results.facets(setting),
            hovertext=[_told(results, setting, score) for score in scores],
            hoverinfo="text", customdata=[_traded(candidate) for candidate in placed],
        )  # fmt: skip
    figure.add_scatter(
        x=[candidate.score.counted for candidate in front],
        y=[candidate.score.interval.mean for candidate in front], mode="lines",
        line={"color": style.FLOOR_COLOUR, "width": 1.5, "shape": "hv"}, hoverinfo="skip", name="front",
        meta={"phase": "ablation", "front": 1, **results.place},
        customdata=[_traded(candidate) for candidate in front],
    )  # fmt: skip
    curves.add_floor(figure, results)
    style.finish(figure, 460)
    counted = {candidate.score.counted for held in by_setting.values() for candidate in held}
    style.nfe_axis(figure, sorted({*results.budgets, *(n for n in counted if _apart(n, results.budgets))}))
    every = [results.interval(setting, n).mean for setting in results.settings for n in results.budgets]
    style.value_axis(figure, results.metric.label, [results.floor.mean, *every])
    caption = (
        "Every setting of the ablation at every NFE, mean over seeds on the test split; the line joins those that no "
        f"other beats in both, chosen on validation. {AGAIN} "
        f"{context(results, results.settings)}"
    )
    return Panel("pareto", title, caption + style.unnamed(figure), figure)


def _apart(calls: int, budgets: Sequence[int]) -> bool:
    """Whether there is room for a tick of its own beside those of the budgets."""
    return all(abs(calls - budget) > 0.25 * budget for budget in budgets)


def _told(results: Results, setting: Setting, score: Score) -> str:
    """A point's name, its recipe in lines that a figure holds, its score."""
    words = "<br>".join(textwrap.wrap(recipe(results.design, setting, score), 70))
    return f"{setting.label}<br>{words}<br>NFE {score.counted}: {formats.with_n(score.interval)}"


def _traded(candidate: Candidate) -> dict[str, Any]:
    """What the page knows of a point that may be on the front."""
    known = style.point(candidate.setting.digest, candidate.budget, y=candidate.score.interval)
    return {**known, TRADE: [candidate.score.counted, candidate.value]}


def effects_panel(results: Results) -> Panel:
    """The effect of each factor at the headline NFE: one dot and interval a level."""
    title = f"Effect of each factor {budget_label(results.headline)}"
    factors = [(factor, results.factor_settings(factor.path)) for factor in results.design.factors]
    factors = [(factor, [s for s in settings if results.interval(s).n]) for factor, settings in factors]
    factors = [(factor, settings) for factor, settings in factors if len(settings) > 1]
    if not factors:
        return Panel("effects", title, "No factor has two levels with completed runs yet.")
    figure = make_subplots(
        1, len(factors), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=[f.label for f, _ in factors]
    )
    for column, (factor, settings) in enumerate(factors, 1):
        _add_levels(figure, results, factor, settings, column)
        levels = [formats.level(setting.level(factor.path)) for setting in settings]
        longest = max(len(word) for level in levels for word in level.split())
        turned = len(levels) * (longest + 1) > max(_ROOM / len(factors), 24)
        named = levels if turned else [level.replace(" ", "<br>") for level in levels]
        figure.update_xaxes(type="category", categoryorder="array", categoryarray=levels, row=1, col=column,
                            range=[-0.6, len(levels) - 0.4], showgrid=False, tickangle=-40 if turned else 0,
                            tickvals=levels, ticktext=named)  # fmt: skip
    if results.floor.n:
        figure.add_hline(y=results.floor.mean, line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5})
    style.finish(figure, 400, legend=False, titled=True)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title_text=results.metric.label, row=1, col=1)
    caption = (
        "All other factors at the centre. Large dots: mean and 95 % t interval over seeds on the test split; small "
        f"dots: seeds; dashed: floor. {context(results, results.settings)}"
    )
    return Panel("effects", title, caption, figure)


def _add_levels(figure: go.Figure, results: Results, factor: Factor, settings: Sequence[Setting],
                column: int) -> None:  # fmt: skip
    """The levels of a factor: a small dot a seed, a large one with its interval a level."""
    place = {"showlegend": False, "row": 1, "col": column, "hoverinfo": "text", "mode": "markers",
             "meta": {"phase": "ablation", **results.place}}  # fmt: skip
    levels = [formats.level(setting.level(factor.path)) for setting in settings]
    seeds = [
        (level, setting.digest, seed, value) for level, setting in zip(levels, settings, strict=True)
        if (score := results.score(setting)) is not None for seed, value in score.test.items()
    ]  # fmt: skip
    figure.add_scatter(
        x=[level for level, *_ in seeds], y=[value for *_, value in seeds], name=f"{factor.label}, seeds",
        marker={"color": style.colour(column - 1), "size": 6, "opacity": 0.4},
        hovertext=[f"{level}, seed {seed}: {formats.number(value)}" for level, _, seed, value in seeds],
        customdata=[style.point(f"{digest}-{seed}", results.headline, seed) for _, digest, seed, _ in seeds], **place,
    )  # fmt: skip
    intervals = [results.interval(setting) for setting in settings]
    figure.add_scatter(
        x=levels, y=[interval.mean for interval in intervals], name=factor.label,
        marker=style.marker(column - 1, 11), error_y=style.error_bars(intervals),
        hovertext=[
            f"{factor.label} = {level}<br>{formats.with_n(interval)}"
            for level, interval in zip(levels, intervals, strict=True)
        ],
        customdata=[
            style.point(setting.digest, results.headline, y=interval)
            for setting, interval in zip(settings, intervals, strict=True)
        ], **place,
    )  # fmt: skip
