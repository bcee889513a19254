"""How much better the best of a search looks than it is: by its re-run on fresh seeds, and from the search alone."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.effects import residual_deviation
from analysis.results import Results
from analysis.statistics import Interval, mean_interval
from analysis.tables import Column, Table, budget_label
from analysis.tables_runs import search_score

_MINIMUM = 4
_GRID, _STEPS = 60, 100


@dataclass(frozen=True)
class Winner:
    """A run of the search whose setting the ablation ran again.

    Attributes:
        name: which run it is.
        run: its row of `trials`.
        value: its score on validation in the search.
        fresh: {seed: score on validation} of the ablation's runs, the search's own seed left out.
    """

    name: str
    run: dict[str, Any]
    value: float
    fresh: dict[int, float]


def expected_optimism(scores: np.ndarray, deviation: np.ndarray | float) -> np.ndarray:
    """How far the least of K noisy scores is expected to lie below its own mean.

    The mean of the winner given its score, where the distribution that all means come from is that under which the
    scores are likeliest (Kiefer and Wolfowitz 1956; Robbins 1956): on a grid between the scores, by expectation
    maximisation. Taken as normal instead, a few bad runs would hide how close the good ones are.

    Args:
        scores: `[K]` or `[K, searches]`, lower is better.
        deviation: standard deviation of the noise of one score, a number or `[searches]`.

    Returns:
        Not negative; NaN below four scores.
    """
    if len(scores) < _MINIMUM:
        return np.full(scores.shape[1:], np.nan)
    low, high = scores.min(axis=0), scores.max(axis=0)
    grid = np.linspace(low, high, _GRID)
    likelihood = np.exp(-0.5 * ((scores[:, None] - grid[None]) / deviation) ** 2)
    weights = np.full(grid.shape, 1 / _GRID)
    for _ in range(_STEPS):
        posterior = likelihood * weights
        weights = (posterior / posterior.sum(axis=1, keepdims=True)).mean(axis=0)
    of_winner = np.exp(-0.5 * ((low[None] - grid) / deviation) ** 2) * weights
    optimism: np.ndarray = (of_winner * grid).sum(axis=0) / of_winner.sum(axis=0) - low
    return optimism


def optimism_table(results: Results, budget: int | None = None) -> Table:
    """The search's best on validation against what it is worth."""
    budget = results.headline if budget is None else budget
    columns = [
        Column("way", "how it is known"), Column("search", "in the search (validation)", "number"),
        Column("fresh", "on fresh seeds (validation)", "interval"), Column("test", "on fresh seeds (test)", "interval"),
        Column("optimism", "too good by a factor of", "limits"), Column("n", "n (fresh seeds)", "count"),
        Column("tried", "runs that it is the best of", "count"), Column("note", "note"),
    ]  # fmt: skip
    caption = (
        f"{results.metric.label} {budget_label(budget)}; lower is better. The best of many runs owes part of its score "
        f"to luck: a factor of 1.1 says that it is really 10 % worse. Re-run: the same configuration in the ablation, "
        f"on seeds that the search did not have, with the 95 % t interval of the mean log ratio. Estimate: "
        f"what is expected of the best of such scores, given the noise between runs of one setting (of the ablation, "
        f"seeds taken out) and how close the search's runs lie; luck of the search's seed that all its runs share is "
        f"not in it. It has no interval."
    )
    table = Table("optimism", "Optimism of the search's best", caption, columns)
    scored = sorted((value, number) for number, value in enumerate(_scores(results, budget)) if math.isfinite(value))
    for winner in _winners(results, budget):
        table.add(_rerun_row(results, winner, len(scored), budget), {"phase": "search", **results.place})
    if len(scored) >= _MINIMUM and scored[0][0] > 0:
        table.add(_estimate_row(results, [value for value, _ in scored], budget), {"phase": "search", **results.place})
    return table


def _scores(results: Results, budget: int) -> list[float]:
    return [search_score(results, run, budget) for run in results.runs["search"]]


def _winners(results: Results, budget: int) -> list[Winner]:
    """The search's best and, where it is another, the centre that was chosen among its runs."""
    scores = _scores(results, budget)
    finite = [number for number, value in enumerate(scores) if math.isfinite(value)]
    order = sorted(finite, key=lambda number: scores[number])
    digest = (results.study.get("centre") or {}).get("digest")
    found = []
    for rank, number in enumerate(order):
        run = results.runs["search"][number]
        if rank and run["digest"] != digest:
            continue
        score = results.scores["ablation"].get(str(run["digest"]), budget)
        held = dict(score.validation) if score is not None else {}
        fresh = {seed: value for seed, value in held.items() if seed != int(run["seed"])}
        name = "re-run of the best" if not rank else f"re-run of the centre (number {rank + 1} in the search)"
        found.append(Winner(name, run, scores[number], fresh))
    return found


def _rerun_row(results: Results, winner: Winner, tried: int, budget: int) -> dict[str, Any]:
    row: dict[str, Any] = {"way": winner.name, "search": winner.value, "tried": tried, "n": len(winner.fresh)}
    if not winner.fresh:
        return {**row, "note": "its setting was not run again"}
    score = results.scores["ablation"].get(str(winner.run["digest"]), budget)
    test = [value for seed, value in score.test.items() if seed in winner.fresh] if score is not None else []
    row |= {"fresh": mean_interval(list(winner.fresh.values())), "test": mean_interval(test)}
    if min(winner.value, *winner.fresh.values()) <= 0:
        return {**row, "note": "values are not positive: no factor"}
    logs = mean_interval([math.log(value / winner.value) for value in winner.fresh.values()])
    factor = Interval(logs.n, math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high))
    return {**row, "optimism": factor, "note": "one fresh seed: no interval" if logs.n == 1 else None}


def _estimate_row(results: Results, scores: list[float], budget: int) -> dict[str, Any]:
    row: dict[str, Any] = {"way": "estimate", "search": scores[0], "tried": len(scores)}
    deviation, degrees = residual_deviation(results, "validation", budget)
    if not degrees:
        return {**row, "note": "the noise between runs is not known: it takes two settings with two seeds"}
    factor = math.exp(float(expected_optimism(np.log(scores), deviation)))
    note = f"noise between runs: {100 * deviation:.2g} % ({degrees} degrees of freedom)"
    return {**row, "optimism": Interval(1, factor, math.nan, math.nan), "note": note}
