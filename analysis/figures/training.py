"""Figures of training: the terminal test of simulated pairs by cycle, and learning curves."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.artifacts import Artifacts
from analysis.design import Setting
from analysis.families import headliners
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.results import Results
from analysis.statistics import mean_interval
from analysis.tables import context

_CYCLE = re.compile(r"cycle (\d+)")
_POINTS = 300  # of a learning curve; more cannot be seen
_ERRORS = (("terminal_norm_mean_error", "norm: mean"), ("terminal_norm_variance_error", "norm: variance"))


def terminal_panels(results: Results, artifacts: Artifacts) -> list[Panel]:
    """Whether the simulated end points have become the prior, cycle by cycle."""
    return [_spectrum(results, artifacts), _terminal_errors(results)]


def _spectrum(results: Results, artifacts: Artifacts) -> Panel:
    title = "Terminal test: spectrum of the simulated x₁"
    for setting in results.settings:
        for seed in sorted(int(run["seed"]) for run in results.setting_runs(setting)):
            spectra = artifacts.arrays(setting.digest, seed, "spectrum.npz")
            cycles = sorted((name for name in spectra if _number(name)), key=_number)
            if cycles:
                return _spectrum_figure(results, setting, seed, spectra, cycles, title)
    return Panel("terminal_spectrum", title, "No run kept a spectrum (artifacts/…/spectrum.npz).")


def _spectrum_figure(results: Results, setting: Setting, seed: int, spectra: dict[str, np.ndarray], cycles: list[str],
                     title: str) -> Panel:  # fmt: skip
    figure = go.Figure()
    for index, name in enumerate(cycles):
        values = spectra[name].ravel()
        figure.add_scatter(
            x=np.arange(1, len(values) + 1), y=values, mode="lines", name=f"cycle {_number(name)}",
            line=style.line(index),
            hovertemplate=f"cycle {_number(name)}, eigenvalue %{{x}}: %{{y:.3g}}<extra></extra>",
        )  # fmt: skip
    if "prior" in spectra:
        values = spectra["prior"].ravel()
        figure.add_scatter(
            x=np.arange(1, len(values) + 1), y=values, mode="lines", name="prior, same n",
            line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 2},
            hovertemplate="prior: %{y:.3g}<extra></extra>",
        )  # fmt: skip
    style.finish(figure, 380)
    figure.update_xaxes(title_text="eigenvalue, largest first")
    figure.update_yaxes(title_text="eigenvalue of Cov(x₁)")
    caption = (
        f"“{setting.label}”, seed {seed} (n = 1): eigenvalues of the covariance of simulated x₁ after each cycle. At "
        f"the solution they coincide with those of as many draws of the prior (dashed)."
    )
    return Panel("terminal_spectrum", title, caption, figure)


def _terminal_errors(results: Results) -> Panel:
    title = "Terminal test: errors by cycle"
    rows = _ablation_rows(results, "terminal_")
    rows = rows.assign(cycle=_by_stage(rows["stage"], _number))
    rows = rows[rows["cycle"] > 0]
    present = [(name, label) for name, label in _ERRORS if (rows["metric"] == name).any()]
    eigenvalues = rows[rows["metric"] == "terminal_top_eigenvalue"]
    if not present and not len(eigenvalues):
        return Panel("terminal_errors", title, "No run of the ablation recorded a terminal test.")
    panels = [*present, *([("terminal_top_eigenvalue", "largest eigenvalue")] if len(eigenvalues) else [])]
    figure = make_subplots(1, len(panels), subplot_titles=[label for _, label in panels], horizontal_spacing=0.09)
    settings = [setting for setting in results.settings if (rows["digest"] == setting.digest).any()]
    for index, setting in enumerate(settings):
        for column, (name, _) in enumerate(panels, 1):
            own = rows[(rows["digest"] == setting.digest) & (rows["metric"] == name)]
            groups = [
                (int(str(cycle)), mean_interval(_finite(group))) for cycle, group in own.groupby("cycle")["value"]
            ]
            groups = [(cycle, interval) for cycle, interval in groups if interval.n]
            figure.add_scatter(
                x=[cycle for cycle, _ in groups], y=[interval.mean for _, interval in groups], mode="lines+markers",
                name=setting.label, legendgroup=setting.label, showlegend=column == 1, row=1, col=column,
                error_y=style.error_bars([interval for _, interval in groups], "linear"), line=style.line(index),
                marker=style.marker(index, 7), meta=results.facets(setting),
            )  # fmt: skip
    prior = rows[rows["metric"] == "terminal_top_eigenvalue_prior"]["value"]
    if len(eigenvalues) and len(prior):
        line = {"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5}
        figure.add_hline(y=float(prior.mean()), line=line, row=1, col=len(panels))
    style.finish(figure, 400, titled=True)
    figure.update_xaxes(title_text="cycle", dtick=1)
    caption = (
        f"Mean and 95 % t interval over seeds; dashed: the prior with as many draws. {_passed(rows)}"
        f"{context(results, settings)}"
    )
    return Panel("terminal_errors", title, caption, figure)


def _passed(rows: pd.DataFrame) -> str:
    passed = rows[rows["metric"] == "terminal_passed"]
    if not len(passed):
        return ""
    last = passed.sort_values("cycle").groupby(["digest", "seed"])["value"].last()
    return f"After its last cycle {int((last > 0.5).sum())} of {len(last)} runs pass the test. "


def learning_panel(results: Results) -> Panel:
    """The loss of each kind of stage against the step, cycles one after another."""
    title = "Learning curves"
    rows = _ablation_rows(results, "loss")
    rows = rows[rows["step"].notna() & rows["stage"].notna()]
    rows = rows.assign(kind=_by_stage(rows["stage"], _kind))
    # Cells of the grid off its axes would bury the rest.
    settings = [setting for setting in headliners(results) if len(setting.changed) <= 1 or setting.arm]
    settings = [setting for setting in settings if (rows["digest"] == setting.digest).any()]
    if not settings:
        return Panel("learning", title, "No run of the ablation recorded its loss.")
    kinds = list(dict.fromkeys(_kind(stage) for stage in sorted(rows["stage"].unique(), key=_stage_order)))
    height = 90 + 230 * len(kinds)
    figure = make_subplots(len(kinds), 1, subplot_titles=kinds, vertical_spacing=70 / height)
    for index, setting in enumerate(settings):
        own = rows[rows["digest"] == setting.digest]
        named = False
        for row, kind in enumerate(kinds, 1):
            steps, values = _curve(own[own["kind"] == kind])
            if not len(steps):
                continue
            figure.add_scatter(
                x=steps, y=values, mode="lines", name=setting.label, legendgroup=setting.label, showlegend=not named,
                line=style.line(index, 1.6), row=row, col=1, meta=results.facets(setting),
                hovertemplate=f"{setting.label}, step %{{x}}: %{{y:.3g}}<extra></extra>",
            )  # fmt: skip
            named = True
    style.finish(figure, height, titled=True)
    style.value_axis(figure, "loss", _finite(rows["value"]))
    figure.update_xaxes(title_text="training step, cycles one after another", row=len(kinds), col=1)
    caption = f"Mean over seeds of the recorded loss, at most {_POINTS} points a line. {context(results, settings)}"
    return Panel("learning", title, caption, figure)


def _curve(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds, the stages of one kind joined end to end."""
    offset, steps, values = 0, [], []
    for stage in sorted(rows["stage"].unique(), key=_stage_order):
        mean = rows[rows["stage"] == stage].groupby("step")["value"].mean()
        here = mean.index.to_numpy(dtype=float)
        steps.append(here + offset)
        values.append(mean.to_numpy(dtype=float))
        offset += int(here.max()) + 1 if len(here) else 0
    if not steps:
        return np.array([]), np.array([])
    across, up = np.concatenate(steps), np.concatenate(values)
    stride = max(1, math.ceil(len(across) / _POINTS))
    return across[::stride], up[::stride]


def _ablation_rows(results: Results, prefix: str) -> pd.DataFrame:
    metrics = results.collected.metrics
    return metrics[
        (metrics["phase"] == "ablation") & metrics["metric"].str.startswith(prefix) & metrics["value"].notna()
    ]


def _finite(values: "pd.Series[float]") -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


def _by_stage(stages: "pd.Series[str]", function: Callable[[object], object]) -> "pd.Series[Any]":
    """A function of the stage; there are few stages and, on learning curves, millions of rows."""
    return stages.map({stage: function(stage) for stage in stages.dropna().unique()})


def _number(name: object) -> int:
    """The cycle that a stage ("cycle 2: adjoint") or an array ("cycle_2") belongs to, 0 for neither."""
    found = _CYCLE.search(str(name).replace("_", " "))
    return int(found.group(1)) if found else 0


def _kind(stage: object) -> str:
    return str(stage).split(": ", 1)[-1]


def _stage_order(stage: object) -> tuple[int, str]:
    # Stages outside the cycles come after them: a method ends with its backward network.
    return (_number(stage) or 10**6, str(stage))
