"""What the numbers say, in sentences that are made from them and claim no more than they carry."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis import formats
from analysis.comparisons import (
    Comparison,
    arm_comparisons,
    factor_comparisons,
    grid_comparisons,
    table_comparisons,
)
from analysis.design import Factor, Setting
from analysis.ldsb.grid_sizes import grid_size_sentences
from analysis.ldsb.ways import METHOD as LDSB
from analysis.ldsb.words import ldsb_sentences
from analysis.recipes import recipe
from analysis.results import Results
from analysis.statistics import Interval, PairedDifference, holm, paired_difference
from analysis.summary_answer import answer, chosen_value, recommend
from analysis.tables import budget_label, row_label
from analysis.tables_runs import search_score, searched_at

_LEVEL = 0.05
_LISTED = 4  # settings that a sentence names one by one


@dataclass(frozen=True)
class Card:
    """A headline number: what it is, the number, what stands beside it."""

    label: str
    value: str
    note: str


def cards(results: Results) -> list[Card]:
    """The few numbers on top of the report."""
    runs = [run for phase in results.runs.values() for run in phase]
    completed = sum(run["status"] == "completed" for run in runs)
    failed = sum(run["status"] == "failed" for run in runs)
    other = len(runs) - completed - failed
    found: list[Card] = []
    best = recommend(results)
    where = budget_label(results.headline)
    if best is not None:
        interval = results.interval(best.setting)
        by = "best on validation" if best.validated else "best"
        note = f"{recipe(results.design, best.setting, results.score(best.setting))}; {by}, n = {interval.n}"
        found.append(Card(f"recommended: {results.metric.short} {where}", formats.interval(interval), note))
        if best.rivals:
            rival = best.rivals[0].setting
            note = recipe(results.design, rival, results.score(rival))
            found.append(Card(f"runner-up {where}", formats.interval(results.interval(rival)), note))
        null = results.null(best.setting)
        if null.n:
            baseline = results.baseline(best.setting)
            note = baseline.label if baseline is not None else results.design.baseline_label
            found.append(Card(f"null {where}", formats.interval(null), note))
    if results.floor.n:
        found.append(Card("floor", formats.interval(results.floor), "real against real"))
    seconds = sum(run["seconds"] or 0 for run in runs)
    note = ", ".join(
        [f"{failed} failed", *([f"{other} pruned or unfinished"] if other else []), formats.duration(seconds)]
    )
    return [*found, Card("runs completed", f"{completed} of {len(runs)}", note)]


def sentences(results: Results) -> list[str]:
    """The whole summary: the answer, then the findings."""
    return [*answer(results), *findings(results)]


def findings(results: Results) -> list[str]:
    """What else was found, one finding a sentence or two."""
    found = [*_factors(results), *_baseline(results), *grid_size_sentences(results), *ldsb_sentences(results)]
    return [*found, *_search(results), *_runs(results)]


def _factors(results: Results) -> list[str]:
    return [text for factor in results.design.factors if (text := _factor(results, factor))]


def _factor(results: Results, factor: Factor) -> str:
    """The best level of a factor, and whether it can be told from the next."""
    settings = [setting for setting in results.factor_settings(factor.path) if results.interval(setting).n]
    ranked = sorted(settings, key=lambda setting: chosen_value(results, setting))
    if len(ranked) < 2:
        return ""
    best, others = ranked[0], ranked[1:]
    level = formats.level(best.level(factor.path))
    interval = results.interval(best)
    text = f"{factor.label.capitalize() if factor.label.islower() else factor.label}: best is {level}, "
    text += f"{formats.interval(interval)} (n = {interval.n}), with all else at the centre. "
    return text + _separation(results, factor, best, others)


def _separation(results: Results, factor: Factor, best: Setting, others: Sequence[Setting]) -> str:
    """Which other levels differ from the best one; all p values of the sentence are corrected together."""
    own = score.test if (score := results.score(best)) else {}
    pairs = [paired_difference(score.test if (score := results.score(other)) else {}, own) for other in others]
    corrected = holm([pair.p_value for pair in pairs])
    better, worse, equal, untested = (
        "it is better than", "it is worse on test than", "it cannot be told from", "too few seeds to compare it with",
    )  # fmt: skip
    groups: dict[str, list[str]] = {better: [], worse: [], equal: [], untested: []}
    for other, pair, p in zip(others, pairs, corrected, strict=True):
        level = formats.level(other.level(factor.path))
        if math.isnan(p) or p >= _LEVEL:
            groups[untested if math.isnan(p) else equal].append(level)
        else:
            groups[better if _higher(pair) else worse].append(
                f"{level} ({_ratio_text(pair.ratio)}{formats.p_equals(p)})"
            )
    text = "; ".join(f"{name} {_join(members)}" for name, members in groups.items() if members)
    tested = " (paired by seed, Holm-corrected)" if any(p < _LEVEL for p in corrected) else ""
    return f"{text[0].upper()}{text[1:]}{tested}."


def _baseline(results: Results) -> list[str]:
    """What differs from the named baseline, table by table."""
    families: list[tuple[str, str, str | None, list[Comparison]]] = [
        ("levels of " + factor.label, "factor", factor.path, factor_comparisons(results, factor.path))
        for factor in results.design.factors
        if factor.path in results.design.baseline
    ]
    families.append(("methods", "arms", None, arm_comparisons(results)))
    for table in results.tables():
        if all(setting.method == LDSB for setting in results.in_table(table)):
            continue  # each path has its own NFE: they have sentences of their own
        against = [item for item in table_comparisons(results, table) if item.reference.is_baseline]
        families.append((f"methods, {table}", "arms", None, against))
    families.append(("cells of the grid", "grid", None, grid_comparisons(results)))
    found = []
    for name, key, factor, comparisons in families:
        if comparisons:
            found.append(_family(results, name, key, factor, comparisons))
    return found


def _family(results: Results, name: str, key: str, factor: str | None, comparisons: Sequence[Comparison]) -> str:
    comparisons = list({(item.setting.digest, item.reference.digest): item for item in comparisons}.values())
    better = [item for item in comparisons if item.corrected < _LEVEL and not _higher(item.paired)]
    worse = [item for item in comparisons if item.corrected < _LEVEL and _higher(item.paired)]
    rest = [item for item in comparisons if not item.corrected < _LEVEL]
    parts = []
    verdicts = {"significantly better": better, "significantly worse": worse, "not distinguishable": rest}
    for verdict, items in verdicts.items():
        if len(items) > _LISTED:
            every = "all " if len(items) == len(comparisons) else ""
            parts.append(f"{every}{len(items)} {verdict}{_ratio_range(items)}")
        elif items:
            named = [_named(item, row_label(results, item.setting, key, factor)) for item in items]
            parts.append(f"{verdict}: {_join(named)}")
    return (
        f"Against the baseline ({results.design.baseline_label}) {budget_label(results.headline)}, among the {name}, "
        f"{'; '.join(parts)} (Holm over {formats.plural(len(comparisons), 'comparison')})."
    )


def _search(results: Results) -> list[str]:
    found = [(search_score(results, run), run) for run in results.runs["search"]]
    found = [item for item in found if math.isfinite(item[0])]
    if not found:
        return ["The search has no completed run."] if results.runs["search"] else []
    value, _ = min(found, key=lambda item: item[0])
    return [
        f"The search's best score, {formats.number(value)} on validation {searched_at(results)}, is the "
        f"best of {formats.plural(len(found), 'run')} and therefore optimistic; it is no result."
    ]


def _runs(results: Results) -> list[str]:
    runs = [run for phase in results.runs.values() for run in phase]
    failed = sum(run["status"] == "failed" for run in runs)
    if not runs:
        return ["No run has been recorded yet."]
    if failed:
        return [
            f"{formats.plural(failed, 'run').capitalize()} of {len(runs)} failed and {'is' if failed == 1 else 'are'} "
            f"listed below with the error."
        ]
    return []


def _higher(pair: PairedDifference) -> bool:
    """Whether a setting's values lie above its reference's, judged as the test judges it."""
    return pair.ratio.mean > 1 if pair.ratio is not None else pair.difference.mean > 0


def _named(item: Comparison, label: str) -> str:
    p = "" if math.isnan(item.corrected) else formats.p_equals(item.corrected)
    return f"{label} ({_ratio_text(item.paired.ratio)}{p or 'too few seeds to test'})"


def _ratio_range(items: Sequence[Comparison]) -> str:
    ratios = sorted(item.paired.ratio.mean for item in items if item.paired.ratio is not None)
    return f" (ratios {formats.number(ratios[0])} to {formats.number(ratios[-1])})" if ratios else ""


def _ratio_text(ratio: Interval | None) -> str:
    return f"× {formats.number(ratio.mean)}, " if ratio is not None else ""


def _join(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + f" and {parts[-1]}" if len(parts) > 1 else "".join(parts)
