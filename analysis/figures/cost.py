"""Figures of cost: what training took, in network evaluations and seconds, and what it bought."""

import plotly.graph_objects as go

from analysis import formats
from analysis.costs import matched_cost
from analysis.design import Setting
from analysis.figures import style
from analysis.figures.style import Panel
from analysis.results import Results
from analysis.statistics import Interval, mean_interval
from analysis.tables import budget_label, context


def cost_panels(results: Results) -> list[Panel]:
    """Training evaluations by kind, and seconds against quality."""
    return [_evaluations(results), _seconds(results)]


def _evaluations(results: Results) -> Panel:
    title = "Training cost in network evaluations"
    costs = [(setting, results.cost(setting)) for setting in results.settings]
    costs = [(setting, cost) for setting, cost in costs if cost.evaluations > 0]
    if not costs:
        return Panel("cost_evaluations", title, "No completed run recorded its network evaluations.")
    figure = go.Figure()
    kinds = (("simulation of training pairs", "simulation", 1), ("optimisation", "optimisation", 0))
    for name, attribute, index in kinds:
        figure.add_bar(
            y=[setting.label for setting, _ in costs], x=[getattr(cost, attribute) for _, cost in costs],
            orientation="h", name=name, marker={"color": style.colour(index)}, hoverinfo="text",
            meta={"phase": "ablation", **results.place},
            hovertext=[
                f"{setting.label}<br>{name}: {formats.count(getattr(cost, attribute))}<br>"
                f"{formats.duration(cost.seconds)} a run" for setting, cost in costs
            ],
            customdata=[
                style.point(setting.digest, x=_by_seed(results, setting, f"{attribute}_evaluations"))
                for setting, _ in costs
            ],
        )  # fmt: skip
    style.finish(figure, 130 + 26 * len(costs))
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title_text="network calls × samples, mean of a run")
    figure.update_yaxes(autorange="reversed", showgrid=False)
    caption = (
        "Simulation counts the calls that produce training pairs, optimisation those inside training steps. "
        f"{context(results, [setting for setting, _ in costs])} "
        f"{matched_cost(results, [setting for setting, _ in costs])}"
    )
    return Panel("cost_evaluations", title, caption.strip(), figure)


def _by_seed(results: Results, setting: Setting, name: str) -> Interval:
    """What the completed runs of a setting recorded."""
    runs = [run for run in results.setting_runs(setting) if run["status"] == "completed"]
    return mean_interval({int(run["seed"]): float(run[name]) for run in runs if run[name] is not None})


def _seconds(results: Results) -> Panel:
    title = "What the time bought"
    points = [(setting, results.cost(setting), results.interval(setting)) for setting in results.settings]
    points = [point for point in points if point[2].n and point[1].seconds > 0]
    if not points:
        return Panel("cost_seconds", title, "No completed run has both a time and a score.")
    figure = go.Figure()
    for index, (setting, cost, interval) in enumerate(points):
        figure.add_scatter(
            x=[cost.seconds], y=[interval.mean], error_y=style.error_bars([interval]), mode="markers",
            name=setting.label,
            marker=style.marker(index, 10), meta=results.facets(setting), hoverinfo="text",
            hovertext=f"{setting.label}<br>{formats.duration(cost.seconds)} a run<br>{formats.with_n(interval)}",
            customdata=[
                style.point(setting.digest, results.headline, x=_by_seed(results, setting, "seconds"), y=interval)
            ],
        )  # fmt: skip
    if results.floor.n:
        figure.add_hline(y=results.floor.mean, line={"color": style.FLOOR_COLOUR, "dash": "dash", "width": 1.5})
    style.finish(figure, 440)
    figure.update_xaxes(title_text="seconds a run (mean; training and evaluation)", rangemode="tozero")
    values = [results.floor.mean, *(interval.mean for _, _, interval in points)]
    style.value_axis(figure, f"{results.metric.label} {budget_label(results.headline)}", values)
    caption = (
        "Mean seconds of a completed run against quality on the test split with its 95 % t interval; dashed: floor. "
        f"Seconds of different machines do not compare. {context(results, [setting for setting, _, _ in points])}"
    )
    return Panel("cost_seconds", title, caption + style.unnamed(figure), figure)
