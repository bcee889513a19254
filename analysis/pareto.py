"""The Pareto front of quality and NFE: which settings no other beats in both."""

from typing import Any, NamedTuple

from analysis import formats
from analysis.design import Setting
from analysis.ldsb.names import chosen_on_reported
from analysis.quality import Score
from analysis.recipes import recipe
from analysis.results import Results
from analysis.tables import TRADE, Column, Table, at, context

AGAIN = "Filters choose it again among what they leave, by the same means over all seeds."


MOST = 2_000  # candidates that the page holds, so that filters can bring them in


class Candidate(NamedTuple):
    """A setting at an NFE, its score there, and the value that decides: the mean on validation."""

    setting: Setting
    budget: int
    score: Score
    value: float


def candidates(results: Results) -> list[Candidate]:
    """Every setting at every NFE, by counted calls and then by value; none whose test values chose its path."""
    if results.budgets == (0,):
        return []  # a metric that needs no sampling has no NFE to trade for
    found = [
        # Without validation values the front can only be chosen on what it reports; the caption then says so.
        Candidate(setting, budget, score, score.validation_mean if score.validation else score.interval.mean)
        for setting in results.settings if not chosen_on_reported(setting.leaves) for budget in results.budgets
        if (score := results.score(setting, budget)) is not None and score.test
    ]  # fmt: skip
    ordered = sorted(found, key=lambda candidate: (candidate.score.counted, candidate.value))
    once: dict[tuple[str, int], Candidate] = {}  # what is asked for with 5 calls and with 10 may take 5 both times
    for candidate in ordered:
        once.setdefault((candidate.setting.digest, candidate.score.counted), candidate)
    return list(once.values())


def pareto_front(results: Results) -> list[Candidate]:
    """Those that no other beats in both value and counted calls."""
    front: list[Candidate] = []
    for candidate in candidates(results):
        if not front or candidate.value < front[-1].value:
            front.append(candidate)
    return front


def pareto_table(results: Results) -> Table:
    """The front of quality against NFE: chosen on validation, reported on test."""
    validated = any(score.validation for score in results.scores["ablation"].by_key.values())
    chosen = (
        "The front is chosen on validation, the values are on test." if validated
        else "There are no validation values: the front is chosen on the values shown, which makes them optimistic."
    )  # fmt: skip
    known = candidates(results)
    filters = AGAIN if len(known) <= MOST else "Filters only take rows out of it."
    caption = (
        f"Settings that no other setting of the ablation beats in both {results.metric.label} and counted network "
        f"calls a sample. {chosen} {filters} {context(results, results.settings)}"
    )
    columns = [
        Column("counted", "NFE", "count"), Column("setting", "setting"), Column("sampler", "sampler"),
        Column("recipe", "recipe"), Column("n", "n (seeds)", "count"),
        Column("value", results.metric.label, "interval"), Column("floor", "floor", "number"),
        Column("null", "null", "number"),
        Column("evaluations", "training evaluations", "count"), Column("seconds", "seconds a run", "duration"),
        Column("failed", "failed runs", "count"),
    ]  # fmt: skip
    table = Table("pareto", "Pareto front of quality and NFE", caption, columns)
    for candidate in pareto_front(results):
        table.add(_row(results, candidate), _facets(results, candidate), candidate.setting.digest)
    if len(known) <= MOST:
        table.rivals = Table(table.key, table.title, caption, columns)
        for candidate in known:
            table.rivals.add(_row(results, candidate), _facets(results, candidate), candidate.setting.digest)
    return table


def _row(results: Results, candidate: Candidate) -> dict[str, Any]:
    setting, budget, score, _ = candidate
    cost = results.cost(setting)
    return {
        "counted": score.counted, "setting": setting.label, "n": score.interval.n, "value": score.interval,
        "sampler": " / ".join(formats.level(part) for part in score.sampler if part),
        "recipe": recipe(results.design, setting, score),
        "floor": results.floor.mean, "null": results.null(setting, budget).mean,
        "evaluations": cost.evaluations, "seconds": cost.seconds, "failed": results.failed(setting, budget),
        TRADE: (score.counted, candidate.value),
    }  # fmt: skip


def _facets(results: Results, candidate: Candidate) -> dict[str, str]:
    return {**results.facets(candidate.setting), **at(candidate.budget)}
