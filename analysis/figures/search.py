"""Every proposal of the search in the order of Optuna's trials: optimistic, no claim."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis import formats
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.results import Results
from analysis.tables_runs import run_name

_OPTIMISTIC = "Optimistic (validation, the best of many tries): no claim rests on it."


def proposals_panel(results: Results) -> Panel:
    """The first objective of every completed trial, and the best so far."""
    trials, reason = read_trials(results)
    if reason:
        return Panel("proposals", "Every proposal of the search", reason)
    completed = [
        trial for trial in trials if trial.state.name == "COMPLETE" and trial.values and math.isfinite(trial.values[0])
    ]
    return _proposals(results, completed)


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
        customdata=_known(results, trials),
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


def _known(results: Results, trials: Sequence[Any]) -> list[dict[str, Any]]:
    """What the page knows of each trial: the run that answered it."""
    runs = {number: run for run in results.runs["search"] for number in run["optuna_numbers"] or ()}
    return [
        style.point(run_name(run), trial.params.get("nfe"), int(run["seed"]))
        if (run := runs.get(trial.number)) is not None else style.point(nfe=trial.params.get("nfe"))
        for trial in trials
    ]  # fmt: skip
