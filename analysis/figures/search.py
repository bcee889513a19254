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
from analysis.tables_grid import STEPS
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
    objectives = [str(name) for name in results.study.get("objectives") or ["value"]]
    told = [[_plain(name, value) for name, value in zip(objectives, trial.values, strict=False)] for trial in trials]
    values, numbers = [one[0] for one in told], [trial.number for trial in trials]
    figure = go.Figure()
    figure.add_scatter(
        x=numbers, y=values, mode="markers", marker=_marks(results, objectives, told), hoverinfo="text",
        hovertext=[_hover(results, objectives, trial, one) for trial, one in zip(trials, told, strict=True)],
        showlegend=False, meta={"phase": "search"}, customdata=_known(results, trials),
    )  # fmt: skip
    best = np.minimum.accumulate([value for _, value in sorted(zip(numbers, values, strict=True))])
    figure.add_scatter(
        x=sorted(numbers), y=best, mode="lines", line={"color": style.FLOOR_COLOUR, "shape": "hv", "width": 1.5},
        name="best so far", meta={"phase": "search"}, hoverinfo="skip",
    )  # fmt: skip
    style.finish(figure, 380, legend=False)
    figure.update_xaxes(title_text="Optuna trial")
    style.value_axis(figure, _name(results, objectives[0]), values)
    third = f"; size: {_name(results, objectives[2])}" if len(told[0]) > 2 else ""
    caption = f"{formats.plural(len(trials), 'completed trial')}; line: best so far{third}. {_OPTIMISTIC}"
    return Panel("proposals", title, caption, figure)


def _plain(objective: str, value: float) -> float:
    """An objective's value, out of its logarithm."""
    return math.exp(value) if objective.startswith("log_") else value


def _name(results: Results, objective: str) -> str:
    """An objective's name for people."""
    plain = objective.removeprefix("log_").replace(results.metric.name, results.metric.label)
    return plain.replace("validation_quality", f"validation {results.metric.label}").replace("_", " ")


def _marks(results: Results, objectives: Sequence[str], told: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Coloured by the second objective, as large as the third."""
    marks: dict[str, Any] = {"size": 9, "color": style.colour(0)}
    if len(told[0]) > 1:
        ticks = sorted({one[1] for one in told})
        label = objectives[1].upper() if objectives[1] == "nfe" else _name(results, objectives[1])
        marks |= {
            "color": [math.log10(max(one[1], 1)) for one in told], "colorscale": style.SEQUENTIAL, "showscale": True,
            "colorbar": {"title": {"text": label, "side": "right"}, "thickness": 14, "outlinewidth": 0,
                         "tickvals": [math.log10(max(tick, 1)) for tick in ticks],
                         "ticktext": [f"{tick:g}" for tick in ticks]},
        }  # fmt: skip
    if len(told[0]) > 2:
        sizes = [math.log(max(one[2], 1e-12)) for one in told]
        width = (max(sizes) - min(sizes)) or 1.0
        marks["size"] = [7 + 11 * (size - min(sizes)) / width for size in sizes]
    return marks


def _hover(results: Results, objectives: Sequence[str], trial: Any, told: Sequence[float]) -> str:
    """A trial's values and what it proposed."""
    lines = [f"trial {trial.number}: {formats.number(told[0])}"]
    lines += [
        f"{_name(results, name)}: {formats.count(value)}"
        for name, value in zip(objectives[2:], told[2:], strict=False)
    ]
    for path, level in trial.params.items():
        known = results.parameters.get(path)
        lines.append(f"{known.label} = {known.text(level)}" if known else f"{path} = {formats.level(level)}")
    return "<br>".join(lines)


def _known(results: Results, trials: Sequence[Any]) -> list[dict[str, Any]]:
    """What the page knows of each trial: the run that answered it."""
    runs = {number: run for run in results.runs["search"] for number in run["optuna_numbers"] or ()}
    calls = [trial.params.get("nfe", trial.params.get(STEPS)) for trial in trials]
    return [
        style.point(run_name(run), nfe, int(run["seed"]))
        if (run := runs.get(trial.number)) is not None else style.point(nfe=nfe)
        for trial, nfe in zip(trials, calls, strict=True)
    ]  # fmt: skip
