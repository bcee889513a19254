"""Quality against NFE for each group of arms; of the tuned ones a line for the best of each family."""

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.costs import matched_cost
from analysis.design import Setting
from analysis.families import TUNED, best_of_families, families, table_slug
from analysis.figures import curves, style
from analysis.figures.curves import Line
from analysis.figures.style import Panel
from analysis.ldsb.ways import METHOD as LDSB
from analysis.results import Results
from analysis.tables import choice, context


def has_own_nfe(settings: Sequence[Setting]) -> bool:
    """Whether all are paths of LDSB: each has a number of calls of its own, and their section its own figures."""
    return bool(settings) and all(setting.method == LDSB for setting in settings)


def group_panels(results: Results) -> list[Panel]:
    """A panel for each table of arms that has a score."""
    panels = []
    for table in results.tables():
        if has_own_nfe(results.in_table(table)):
            continue
        lines = _best(results) if table == TUNED else _members(results, table)
        lines = [line for line in lines if any(score.interval.n for *_, score in line.scores)]
        if lines:
            panels.append(_panel(results, table, lines, results.in_table(table)))
    return panels


def _members(results: Results, table: str) -> list[Line]:
    lines = []
    for setting in results.in_table(table):
        name = setting.name_in(table) or setting.label
        name += " (baseline)" if setting.is_baseline and not setting.is_centre else ""
        scores = [
            (n, setting.digest, score) for n in results.budgets if (score := results.score(setting, n)) is not None
        ]
        lines.append(Line(name, {**results.facets(setting), "table": table}, scores))
    return lines


def _best(results: Results) -> list[Line]:
    lines: dict[str, Line] = {}
    for budget in results.budgets:
        for best in best_of_families(results, budget):
            facets = {**results.facets(best.setting), "method": best.family, "table": TUNED}
            line = lines.setdefault(best.family, Line(best.family, facets))
            line.scores.append((budget, best.setting.digest, best.score))
            line.notes[budget] = f"{best.name}, best of {best.candidates} on validation"
    order = list(families(results))
    return sorted(lines.values(), key=lambda line: order.index(line.name))


def _panel(results: Results, table: str, lines: Sequence[Line], settings: Sequence[Setting]) -> Panel:
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
    caption = "Mean over seeds on the test split; bands: 95 % t intervals. "
    if table == TUNED:
        caption += "Each point is the candidate of its family that is best on validation at that NFE; hover names it. "
    caption += f"{choice(results)} {context(results, settings)} {matched_cost(results, settings)}".strip()
    title = f"{results.metric.short} against NFE: methods, {'best of each family' if table == TUNED else table}"
    return Panel(f"curves_{table_slug(table)}", title, caption + (curves.CLIPPED if clipped else ""), figure)
