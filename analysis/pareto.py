"""The Pareto front of quality and NFE: which settings no other beats in both."""

import math

from analysis import formats
from analysis.design import Setting
from analysis.results import Results
from analysis.tables import Column, Table, at, context


def pareto_front(results: Results) -> list[tuple[Setting, int]]:
    """The (setting, NFE budget) that no other beats in both validation score and counted calls."""
    points: list[tuple[int, float, Setting, int]] = []
    for setting in results.settings:
        for budget in results.budgets:
            score = results.score(setting, budget)
            if score is None or not score.test:
                continue
            # Without validation values the front can only be chosen on what it reports; the caption then says so.
            value = score.validation_mean if score.validation else score.interval.mean
            points.append((score.counted, value, setting, budget))
    if results.budgets == (0,):
        return []  # a metric that needs no sampling has no NFE to trade for
    front: list[tuple[Setting, int]] = []
    best = math.inf
    for _, value, setting, budget in sorted(points, key=lambda point: point[:2]):
        if value < best:
            best = value
            front.append((setting, budget))
    return front


def pareto_table(results: Results) -> Table:
    """The front of quality against NFE: chosen on validation, reported on test."""
    validated = any(score.validation for score in results.scores["ablation"].by_key.values())
    chosen = (
        "The front is chosen on validation, the values are on test." if validated
        else "There are no validation values: the front is chosen on the values shown, which makes them optimistic."
    )  # fmt: skip
    caption = (
        f"Settings that no other setting of the ablation beats in both {results.metric.label} and counted network "
        f"calls a sample. {chosen} {context(results, results.settings)}"
    )
    columns = [
        Column("counted", "NFE", "count"), Column("setting", "setting"), Column("sampler", "sampler"),
        Column("n", "n (seeds)", "count"),
        Column("value", results.metric.label, "interval"), Column("floor", "floor", "number"),
        Column("null", "null", "number"),
        Column("evaluations", "training evaluations", "count"), Column("seconds", "seconds a run", "duration"),
        Column("failed", "failed runs", "count"),
    ]  # fmt: skip
    table = Table("pareto", "Pareto front of quality and NFE", caption, columns)
    for setting, budget in pareto_front(results):
        score, cost = results.score(setting, budget), results.cost(setting)
        if score is None:
            continue
        row = {
            "counted": score.counted, "setting": setting.label, "n": score.interval.n, "value": score.interval,
            "sampler": " / ".join(formats.level(part) for part in score.sampler if part),
            "floor": results.floor.mean, "null": results.null(setting, budget).mean,
            "evaluations": cost.evaluations, "seconds": cost.seconds, "failed": results.failed(setting, budget),
        }  # fmt: skip
        table.add(row, {**results.facets(setting), **at(budget)}, setting.digest)
    return table
