"""Figures of the search: every proposal, and which parameter mattered. All of them optimistic, none a claim."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis import formats
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.results import Results

_MINIMUM = 4  # completed trials; PED-ANOVA splits them in two
_RESAMPLES = 40
_OPTIMISTIC = "Optimistic (validation, the best of many tries): no claim rests on it."


def search_panels(results: Results) -> list[Panel]:
    """Proposals over time and parameter importance, from the Optuna study."""
    trials, reason = read_trials(results)
    if reason:
        return [Panel("proposals", "Every proposal of the search", reason)]
    completed = [
        trial for trial in trials if trial.state.name == "COMPLETE" and trial.values and math.isfinite(trial.values[0])
    ]
    return [_proposals(results, completed), _importance(results, completed)]


def read_trials(results: Results) -> tuple[list[Any], str]:
    """The Optuna trials of a study, or the sentence that says why there are none."""
    named = results.study.get("optuna") or {}
    url = str(named.get("storage") or "")
    if not url:
        return [], "The study names no Optuna storage."
    if url.startswith("sqlite:///"):
        path = results.collected.folder / url.removeprefix("sqlite:///")
        # Opening SQLite would create an empty file and call it a study without trials.
        if not path.is_file():
            return [], f"The search has left no Optuna database ({path.name})."
        url = f"sqlite:///{Path(path).resolve()}"
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.load_study(study_name=named.get("study_name"), storage=url)
        return study.get_trials(deepcopy=False), ""
    except (
        optuna.exceptions.OptunaError,
        SQLAlchemyError,
        KeyError,
        ValueError,
        ImportError,
        OSError,
        RuntimeError,
    ) as error:
        return [], f"The Optuna study could not be opened: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _proposals(results: Results, trials: Sequence[Any]) -> Panel:
    title = "Every proposal of the search"
    if not trials:
        return Panel("proposals", title, "No trial of the search is completed.")
    objectives = results.study.get("objectives") or ["value"]
    log = objectives[0].startswith("log_")
    name = objectives[0].removeprefix("log_").replace(results.metric.name, results.metric.label).replace("_", " ")
    values = [math.exp(trial.values[0]) if log else trial.values[0] for trial in trials]
    numbers = [trial.number for trial in trials]
    figure = go.Figure()
    colours = [trial.values[1] for trial in trials] if len(trials[0].values) > 1 else None
    marks: dict[str, Any] = {"size": 9, "color": style.colour(0)}
    if colours:
        ticks = sorted(set(colours))
        marks |= {
            "color": [math.log10(max(value, 1)) for value in colours], "colorscale": style.SEQUENTIAL,
            "showscale": True,
            "colorbar": {"title": {"text": objectives[1].upper(), "side": "right"}, "thickness": 14, "outlinewidth": 0,
                         "tickvals": [math.log10(max(tick, 1)) for tick in ticks],
                         "ticktext": [f"{tick:g}" for tick in ticks]},
        }  # fmt: skip
    labels = {item["path"]: item.get("label") or item["path"] for item in results.study.get("space") or []}
    hover = [
        f"trial {trial.number}: {formats.number(value)}<br>"
        + "<br>".join(f"{labels.get(path, path)} = {formats.level(level)}" for path, level in trial.params.items())
        for trial, value in zip(trials, values, strict=True)
    ]
    figure.add_scatter(
        x=numbers,
        y=values,
        mode="markers",
        marker=marks,
        hovertext=hover,
        hoverinfo="text",
        showlegend=False,
        meta={"phase": "search"},
    )
    best = np.minimum.accumulate([value for _, value in sorted(zip(numbers, values, strict=True))])
    figure.add_scatter(
        x=sorted(numbers),
        y=best,
        mode="lines",
        line={"color": style.FLOOR_COLOUR, "shape": "hv", "width": 1.5},
        name="best so far",
        meta={"phase": "search"},
        hoverinfo="skip",
    )
    style.finish(figure, 380, legend=False)
    figure.update_xaxes(title_text="Optuna trial")
    style.value_axis(figure, name, values)
    caption = f"{formats.plural(len(trials), 'completed trial')}; line: best so far. {_OPTIMISTIC}"
    return Panel("proposals", title, caption, figure)


def _importance(results: Results, trials: Sequence[Any]) -> Panel:
    title = "Parameter importance in the search"
    if len(trials) < _MINIMUM:
        text = f"Parameter importance needs at least {_MINIMUM} completed trials; the search has {len(trials)}."
        return Panel("importance", title, text)
    whole = _importances(trials)
    if not whole:
        return Panel(
            "importance",
            title,
            "Parameter importance cannot be computed: no parameter varies among the completed trials.",
        )
    generator = np.random.default_rng(0)
    drawn = [
        _importances([trials[i] for i in generator.integers(len(trials), size=len(trials))]) for _ in range(_RESAMPLES)
    ]
    names = sorted(whole, key=lambda name: whole[name])
    samples = {name: [one[name] for one in drawn if name in one] or [whole[name]] for name in names}
    low = {name: min(float(np.quantile(values, 0.05)), whole[name]) for name, values in samples.items()}
    high = {name: max(float(np.quantile(values, 0.95)), whole[name]) for name, values in samples.items()}
    labels = {item["path"]: item.get("label") or item["path"] for item in results.study.get("space") or []}
    bars = {
        "type": "data", "symmetric": False, "thickness": 1.6, "width": 5,
        "array": [high[name] - whole[name] for name in names],
        "arrayminus": [whole[name] - low[name] for name in names],
    }  # fmt: skip
    figure = go.Figure(
        go.Bar(
            x=[whole[name] for name in names], y=[labels.get(name, name) for name in names], orientation="h",
            error_x=bars,
            marker={"color": style.colour(0)}, meta={"phase": "search"}, hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    )  # fmt: skip
    style.finish(figure, 110 + 36 * len(names), legend=False)
    figure.update_xaxes(title_text="share of importance", range=[0, 1.02])
    objective = (results.study.get("objectives") or ["the objective"])[0].replace("_", " ")
    caption = (
        f"PED-ANOVA on {objective}, n = {len(trials)} completed trials: importance for reaching the best tenth of the "
        f"search, not for the mean. Error bars: 5 % to 95 % of {_RESAMPLES} bootstrap resamples. {_OPTIMISTIC}"
    )
    return Panel("importance", title, caption, figure)


def _importances(trials: Sequence[Any]) -> dict[str, float]:
    """PED-ANOVA of the first objective (lower is better, as PED-ANOVA assumes for a target)."""
    import optuna

    study = optuna.create_study(directions=["minimize"])
    study.add_trials(
        optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=trial.values[0])
        for trial in trials
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
            )
    except (ValueError, RuntimeError, ZeroDivisionError):
        return {}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}
