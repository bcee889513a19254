"""What the balanced ablation says of each factor: main effects, the interaction of the crossed pair, with intervals."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from analysis import formats
from analysis.design import Setting
from analysis.linear_model import Effects, LinearModel, Term
from analysis.results import Results
from analysis.statistics import Interval, holm
from analysis.tables import Column, Table, budget_label, context
from analysis.tables_grid import cell_budget, where_measured

_INCOMPLETE = "a combination has no run: no interaction can be told, effects assume there is none"


@dataclass(frozen=True)
class Analysed:
    """One term of a fitted model.

    Attributes:
        factors: the paths that it crosses.
        names: for each of its effects the levels, for people.
        effects: estimates and limits, logarithmic where `ratios`.
        ratios: whether the metric's logarithm was analysed, so that effects are factors.
        degrees: of freedom of the residual variance.
        runs: how many were analysed.
        seeds: how many.
        note: what could not be done.
    """

    factors: tuple[str, ...]
    names: list[tuple[str, ...]]
    effects: Effects
    ratios: bool
    degrees: int
    runs: int
    seeds: int
    note: str = ""


@dataclass(frozen=True)
class _Runs:
    """The values that a model is fitted to, with the level of each factor."""

    factors: tuple[str, ...]
    levels: list[list[str]]
    codes: np.ndarray
    seeds: np.ndarray
    values: np.ndarray


def analyse(results: Results, budget: int | None = None) -> list[Analysed]:
    """The crossed factors with their interactions by pairs, then every other factor with all else at the centre."""
    grid = tuple(results.design.grid) if results.grid_settings() else ()
    found = _fitted(results, grid, results.grid_settings(), budget) if grid else []
    for factor in results.design.factors:
        if factor.path not in grid:
            found += _fitted(results, (factor.path,), results.factor_settings(factor.path), budget)
    return found


def effects_table(results: Results, budget: int | None = None) -> Table:
    """A row an effect: a level against the mean of its factor, a cell against what the main effects add up to."""
    found = analyse(results, budget)
    columns = [
        Column("term", "term"), Column("level", "level"),
        Column("effect", "effect", "limits"), Column("p", "p (Holm within the term)", "p"),
        Column("term_p", "p of the term (F test)", "p"), Column("share", "share of variation", "number"),
        Column("n", "n (seeds)", "count"), Column("runs", "runs", "count"), Column("degrees", "df", "count"),
        Column("note", "note"),
    ]  # fmt: skip
    table = Table("effects", "Effects of the factors", _caption(results, found, budget), columns)
    for term in found:
        corrected = holm(term.effects.p_values.tolist())
        label = " × ".join(results.design.label(path) for path in term.factors)
        for row, names in enumerate(term.names):
            table.add({
                "term": label, "level": ", ".join(names), "effect": _interval(term, row), "p": corrected[row],
                "term_p": float(term.effects.f_p_value), "share": float(term.effects.share), "n": term.seeds,
                "runs": term.runs, "degrees": term.degrees, "note": term.note,
            }, {"phase": "ablation", **results.place})  # fmt: skip
    return table


def residual_deviation(results: Results, split: str, budget: int) -> tuple[float, int]:
    """Standard deviation of log values between runs of one setting, seeds taken out; and its degrees of freedom.

    NaN and 0 without two settings that share two seeds.
    """
    values = pd.DataFrame(_values(results, results.settings, budget, split), columns=["digest", "seed", "value"])
    if values.empty or values["value"].min() <= 0:
        return math.nan, 0
    values["value"] = np.log(values["value"])
    table = values.pivot(index="digest", columns="seed", values="value")
    # Seeds that most settings have, then settings that have all of these: a balanced table needs no model.
    table = table.loc[:, table.notna().mean() > 0.5].dropna()
    degrees = (len(table) - 1) * (len(table.columns) - 1)
    if degrees < 1:
        return math.nan, 0
    numbers = table.to_numpy()
    residual = numbers - numbers.mean(axis=0) - numbers.mean(axis=1, keepdims=True) + numbers.mean()
    return float(np.sqrt((residual**2).sum() / degrees)), degrees


def _fitted(results: Results, factors: tuple[str, ...], settings: Sequence[Setting],
            budget: int | None) -> list[Analysed]:  # fmt: skip
    settings, factors, note = _without_idle(results, factors, settings)
    runs = _runs(results, factors, settings, budget)
    if runs is None:
        return []
    single: list[Term] = [(index,) for index in range(len(factors))]
    terms = [*single, *combinations(range(len(factors)), 2)]
    counts = [len(levels) for levels in runs.levels]
    try:
        model = LinearModel(runs.codes, counts, terms, runs.seeds)
    except ValueError:
        if len(factors) == 1:
            return []
        terms = single
        note = "; ".join(filter(None, (note, _INCOMPLETE)))
        try:
            model = LinearModel(runs.codes, counts, terms, runs.seeds)
        except ValueError:
            return []
    seeds = len(np.unique(runs.seeds))
    note = "; ".join(filter(None, (note, "one seed: no interval"))) if seeds == 1 else note
    ratios = bool(runs.values.min() > 0)
    fit = model.fit(np.log(runs.values) if ratios else runs.values)
    found = []
    for term in terms:
        effects = fit.effects(term)
        names = [
            tuple(runs.levels[factor][level] for factor, level in zip(term, row, strict=True)) for row in effects.levels
        ]
        paths = tuple(factors[factor] for factor in term)
        found.append(Analysed(paths, names, effects, ratios, model.degrees, len(runs.values), seeds, note))
    return found


def _without_idle(results: Results, factors: tuple[str, ...],
                  settings: Sequence[Setting]) -> tuple[list[Setting], tuple[str, ...], str]:  # fmt: skip
    """Without the levels beside which another factor does nothing, so that no run counts twice; what was left out.

    A level at whose every cell the same runs stand again says nothing of the factor that does nothing there.
    """
    kept, left_out = list(settings), []
    for path in factors:
        for level in dict.fromkeys(formats.level(setting.level(path)) for setting in kept):
            own = [setting for setting in kept if formats.level(setting.level(path)) == level]
            counts = Counter(setting.digest for setting in own)
            if min(counts.values()) > 1:
                kept = [setting for setting in kept if setting not in own]
                left_out.append(f"{results.design.label(path)} = {level}")
    varied = tuple(path for path in factors if len({formats.level(setting.level(path)) for setting in kept}) > 1)
    again = len(kept) - len({setting.digest for setting in kept})
    note = f"without {', '.join(left_out)}, where another factor does nothing" if left_out else ""
    if again:
        return [], varied, note
    return kept, varied, note


def _runs(results: Results, factors: tuple[str, ...], settings: Sequence[Setting],
          budget: int | None) -> _Runs | None:  # fmt: skip
    by_digest = {setting.digest: setting for setting in settings}
    values = _values(results, settings, budget, "test")
    levels: list[list[str]] = []
    for path in factors:
        measured = {formats.level(by_digest[digest].level(path)) for digest, _, _ in values}
        factor = results.design.factor(path)
        designed = [formats.level(value) for value in factor.values] if factor else []
        levels.append([level for level in dict.fromkeys([*designed, *sorted(measured)]) if level in measured])
    if not factors or any(len(found) < 2 for found in levels):
        return None
    codes = [
        [found.index(formats.level(by_digest[digest].level(path))) for path, found in zip(factors, levels, strict=True)]
        for digest, _, _ in values
    ]
    seeds, numbers = np.array([seed for _, seed, _ in values]), np.array([value for *_, value in values])
    return _Runs(factors, levels, np.array(codes), seeds, numbers)


def _values(results: Results, settings: Sequence[Setting], budget: int | None,
            split: str) -> list[tuple[str, int, float]]:  # fmt: skip
    found = []
    for setting in settings:
        score = results.score(setting, cell_budget(results, setting) if budget is None else budget)
        if score is not None:
            held = score.test if split == "test" else score.validation
            found += [(setting.digest, seed, value) for seed, value in held.items()]
    return found


def _interval(term: Analysed, row: int) -> Interval:
    numbers = [float(side[row]) for side in (term.effects.estimate, term.effects.low, term.effects.high)]
    mean, low, high = (math.exp(number) for number in numbers) if term.ratios else numbers
    return Interval(term.seeds, mean, low, high)


def _caption(results: Results, found: Sequence[Analysed], budget: int | None) -> str:
    if not found:
        return "No factor of the ablation has two levels with scores."
    scale = (
        "Effects are factors: the level's geometric mean over that of all levels (1: no effect); of an interaction, "
        "over what the main effects make of it."
        if all(term.ratios for term in found)
        else "Effects are differences from the mean of all levels, in units of the metric; of an interaction, from "
        "what the main effects add up to."
    )
    where = where_measured(results) if budget is None else budget_label(budget)
    pairs = sum(len(term.factors) == 2 for term in found)
    three = " The interaction of all three counts as residual." if pairs == 3 else ""
    return (
        f"{results.metric.label} on the test split {where}; lower is better. {scale} Least squares with "
        f"seeds as blocks and one residual variance, 95 % t intervals of each effect, uncorrected; p is corrected by "
        f"Holm within the term, the F test asks whether the term does anything. Share: of the variation within seeds "
        f"among the runs of its model.{three} {context(results, results.settings)}"
    )

