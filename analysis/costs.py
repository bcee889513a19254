"""Whether settings that are compared were trained at the same cost, in words."""

import math
from collections.abc import Sequence

from analysis import formats
from analysis.design import Setting
from analysis.results import Results

BUDGET = "training.budget"


def budget_of(setting: Setting) -> float | None:
    """The network evaluations that a setting's training was given, None without a budget."""
    value = setting.leaves.get(BUDGET)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


def largest_deviation(values: Sequence[float]) -> float:
    """(max − min) / min of positive values, NaN for fewer than two."""
    return max(values) / min(values) - 1 if len(values) > 1 else math.nan


def matched_cost(results: Results, settings: Sequence[Setting]) -> str:
    """The counted cost of settings that have a budget, with the largest deviation; nothing where none has one."""
    costed = [(budget, results.cost(setting).evaluations) for setting in settings if (budget := budget_of(setting))]
    costed = [(budget, spent) for budget, spent in costed if spent > 0]
    if not costed:
        return ""
    spent = [value for _, value in costed]
    budgets = sorted({budget for budget, _ in costed})
    named = formats.count(budgets[0]) if len(budgets) == 1 else f"{formats.count(budgets[0])} to "
    named += formats.count(budgets[-1]) if len(budgets) > 1 else ""
    text = f"Budget of a training: {named} network evaluations, simulation included; counted: "
    if len(spent) == 1:
        return text + f"{formats.count(spent[0])}."
    off = max(abs(value / budget - 1) for budget, value in costed)
    return text + (
        f"{formats.count(min(spent))} to {formats.count(max(spent))}, a largest deviation of "
        f"{percent(largest_deviation(spent))} between settings and of {percent(off)} from the budget."
    )


def percent(share: float) -> str:
    """A share as per cent: 4.2 %."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else formats.ABSENT
