"""Figures of training: the terminal test of simulated pairs by cycle, and learning curves."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis import formats
from analysis.artifacts import Artifacts
from analysis.design import Setting
from analysis.families import headliners
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.results import Results
from analysis.stages import cycle_of, kind_of, stage_order
from analysis.tables import context
from analysis.tables_measures import over_seeds

_POINTS = 200  # of a learning curve; more cannot be seen
_LINES = 12  # settings whose learning curves are drawn
_ERRORS = (("terminal_norm_mean_error", "norm: mean"), ("terminal_norm_variance_error", "norm: variance"))


def terminal_panels(results: Results, artifacts: Artifacts) -> list[Panel]:
    """Whether the simulated end points have become the prior, cycle by cycle."""
    return [_spectrum(results, artifacts), _terminal_errors(results)]


def _spectrum(results: Results, artifacts: Artifacts) -> Panel:
    title = "Terminal test: spectrum of the simulated x₁"
    for setting in results.settings:
        for seed in sorted(int(run["seed"]) for run in results.setting_runs(setting)):
            spectra = artifacts.arrays(setting.digest, seed, "spectrum.npz")
            cycles = sorted((name for name in spectra if cycle_of(name)), key=cycle_of)
            if cycles:
                return _spectrum_figure(results, setting, seed, spectra, cycles, title)
    return Panel("terminal_spectrum", title, "No run kept a spectrum (artifacts/…/spectrum.npz).")


def _spectrum_figure(results: Results, setting: Setting, seed: int, spectra: dict[str, np.ndarray], cycles: list[str],
                     title: str) -> Panel:  # fmt: skip
    figure = go.Figure()
    for index, name in enumerate(cycles):
        values = spectra[name].ravel()
        figure.add_scatter(
            x=np.arange(1, len(values) + 1), y=values, mode="lines", name=f"cycle {cycle_of(name)}",
            line=style.line(index),
            meta={**results.facets(setting), "seed": str(seed)},
            customdata=[style.point(f"{setting.digest}-{seed}", seed=seed)],
            hovertemplate=f"cycle {cycle_of(name)}, eigenvalue %{{x}}: %{{y:.3g}}<extra></extra>",
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
    rows = rows.assign(cycle=_by_stage(rows["stage"], cycle_of))
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
                (int(str(cycle)), over_seeds(group)) for cycle, group in own.groupby("cycle")
            ]
            groups = [(cycle, interval) for cycle, interval in groups if interval.n]
            figure.add_scatter(
                x=[cycle for cycle, _ in groups], y=[interval.mean for _, interval in groups], mode="lines+markers",
                name=setting.label, legendgroup=setting.label, showlegend=column == 1, row=1, col=column,
                error_y=style.error_bars([interval for _, interval in groups], "linear"), line=style.line(index),
                marker=style.marker(index, 7), meta=results.facets(setting),
                customdata=[style.point(setting.digest, y=interval) for _, interval in groups],
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
    """The loss of each kind of stage against the step of the whole training."""
    title = "Learning curves"
    # Cells of the grid off its axes would bury the rest.
    settings = [setting for setting in headliners(results) if len(setting.changed) <= 1 or setting.arm]
    rows = results.collected.losses(setting.digest for setting in settings)
    rows = rows[rows["phase"] == "ablation"]
    rows = rows.assign(kind=_by_stage(rows["stage"], kind_of))
    measured = set(rows["digest"].unique())
    settings = [setting for setting in settings if setting.digest in measured]
    left_out, settings = len(settings[_LINES:]), settings[:_LINES]
    if not settings:
        return Panel("learning", title, "No run of the ablation recorded its loss.")
    first = rows.groupby("stage", observed=True)["step"].min()
    stages = sorted(first.index, key=lambda stage: (first[stage], stage_order(stage)))
    kinds = list(dict.fromkeys(kind_of(stage) for stage in stages))
    height = 90 + 230 * len(kinds)
    figure = make_subplots(len(kinds), 1, subplot_titles=kinds, vertical_spacing=70 / height)
    for index, setting in enumerate(settings):
        own = rows[rows["digest"] == setting.digest]
        named = False
        for row, kind in enumerate(kinds, 1):
            steps, values, seeds = _curve(own[own["kind"] == kind])
            if not len(steps):
                continue
            figure.add_scatter(
                x=steps, y=values, mode="lines" if len(steps) > 1 else "markers", name=setting.label,
                legendgroup=setting.label, showlegend=not named, line=style.line(index, 1.6),
                marker=style.marker(index, 7), row=row, col=1, meta=results.facets(setting),
                customdata=[{"run": setting.digest, "y": seeds}],
                hovertemplate=f"{setting.label}, step %{{x}}: %{{y:.3g}}<extra></extra>",
            )  # fmt: skip
            named = True
    style.finish(figure, height, titled=True)
    figure.update_yaxes(title_text="loss", **({"type": "log"} if style.positive(_finite(rows["value"])) else {}))
    figure.update_xaxes(title_text="training step, of all stages together", row=len(kinds), col=1)
    more = f" Left out: {formats.plural(left_out, 'further setting')}." if left_out else ""
    caption = (
        f"Mean over seeds of the recorded loss, at most {_POINTS} points a line.{more} {context(results, settings)}"
    )
    return Panel("learning", title, caption, figure)


def _curve(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, dict[str, list[float]]]:
    """Steps, mean over seeds, and each seed's own values; steps are recorded from the start of the whole training."""
    if not len(rows):
        return np.array([]), np.array([]), {}
    every = rows.groupby(["step", "seed"])["value"].mean().unstack("seed")
    every = every.iloc[:: max(1, math.ceil(len(every) / _POINTS))]
    by_seed = {str(seed): every[seed].to_numpy(dtype=float).tolist() for seed in every.columns}
    return every.index.to_numpy(dtype=float), every.mean(axis=1).to_numpy(dtype=float), by_seed


def _ablation_rows(results: Results, prefix: str) -> pd.DataFrame:
    rows = results.collected.select([name for name in results.collected.metric_names if name.startswith(prefix)])
    return rows[(rows["phase"] == "ablation") & rows["value"].notna()]


def _finite(values: "pd.Series[float]") -> list[float]:
    return [float(value) for value in values if math.isfinite(value)]


def _by_stage(stages: "pd.Series[str]", function: Callable[[object], object]) -> "pd.Series[Any]":
    """A function of the stage; there are few stages and, on learning curves, millions of rows."""
    return stages.map({stage: function(stage) for stage in stages.dropna().unique()})
