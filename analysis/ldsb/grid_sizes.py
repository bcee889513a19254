"""KAN grid size × number of nodes: at each N the best size, and whether it can be told from the others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis import formats
from analysis.design import Factor, Setting
from analysis.members import by_level
from analysis.quality import Score
from analysis.results import Results
from analysis.statistics import PairedDifference, holm, paired_difference
from analysis.tables import Column, Table, at, context
from analysis.tables_grid import STEPS, cell_budget

_LEVEL = 0.05


@dataclass(frozen=True)
class Size:
    """A size at one N.

    Attributes:
        setting: in its place in the grid.
        score: at N calls.
        against: against the best size on validation; None for that one.
        corrected: p value, corrected by Holm over the sizes of this N.
    """

    setting: Setting
    score: Score
    against: PairedDifference | None = None
    corrected: float = math.nan


@dataclass(frozen=True)
class Sizes:
    """All sizes at one N, the best on validation among them.

    Attributes:
        steps: N.
        facet: the third factor's level in words, empty without one.
        sizes: in the order of the design.
    """

    steps: int
    facet: str
    sizes: list[Size]

    @property
    def best(self) -> Size:
        """The one that validation chose."""
        return next(size for size in self.sizes if size.against is None)


def grid_sizes(results: Results) -> list[Sizes]:
    """One a number of nodes (and level of a third factor) with two sizes or more; none where these are not crossed."""
    factor = _size(results)
    if factor is None:
        return []
    groups: dict[tuple[str, int], list[tuple[Setting, Score]]] = {}
    others = [path for path in results.design.grid if path not in (factor.path, STEPS)]
    for cell in by_level(results.design, results.grid_settings(), STEPS):
        score = results.score(cell, cell_budget(results, cell))
        if score is not None and score.test and isinstance(cell.level(STEPS), int):
            facet = ", ".join(f"{results.design.label(path)} = {formats.level(cell.level(path))}" for path in others)
            groups.setdefault((facet, int(cell.level(STEPS))), []).append((cell, score))
    return [
        Sizes(steps, facet, _compared(results, factor, held))
        for (facet, steps), held in groups.items() if len(held) > 1
    ]  # fmt: skip


def _compared(results: Results, factor: Factor, held: Sequence[tuple[Setting, Score]]) -> list[Size]:
    best = min(held, key=lambda item: item[1].validation_mean if item[1].validation else item[1].interval.mean)
    pairs = {
        item[0].place: paired_difference(item[1].test, best[1].test) for item in held if item is not best
    }  # fmt: skip
    corrected = dict(zip(pairs, holm([pair.p_value for pair in pairs.values()]), strict=True))
    scores = {setting.place: score for setting, score in held}
    ordered = by_level(results.design, [setting for setting, _ in held], factor.path)
    return [
        Size(setting, scores[setting.place], pairs.get(setting.place), corrected.get(setting.place, math.nan))
        for setting in ordered
    ]


def grid_size_sentences(results: Results) -> list[str]:
    """For each N the best size, and which others are worse or cannot be told from it."""
    factor = _size(results)
    if factor is None:
        return []
    found = []
    for group in grid_sizes(results):
        best = group.best
        where = f"{group.facet}, " if group.facet else ""
        text = (
            f"KAN grid size, {where}N = {group.steps}: best on validation is {_named(factor, best)}, "
            f"{formats.interval(best.score.interval)} on test (n = {best.score.interval.n}); {_verdict(factor, group)}."
        )
        found.append(text)
    return found


def _verdict(factor: Factor, group: Sizes) -> str:
    others = [size for size in group.sizes if size.against is not None]
    if all(math.isnan(size.corrected) for size in others):
        return "too few seeds to tell it from the others"
    apart = [size for size in others if size.corrected < _LEVEL]
    alike = [size for size in others if not size.corrected < _LEVEL]
    if not apart:
        return f"none of the other {len(others)} sizes can be told from it (paired by seed, Holm over {len(others)})"
    worse = [_named(factor, size) for size in apart if _ratio(size) > 1]
    better = [_named(factor, size) for size in apart if not _ratio(size) > 1]
    parts = [f"it is better than {', '.join(worse)}"] if worse else []
    parts += [f"it is worse on test than {', '.join(better)}"] if better else []
    parts += [f"it cannot be told from {', '.join(_named(factor, size) for size in alike)}"] if alike else []
    return f"{'; '.join(parts)} (paired by seed, Holm over {len(others)})"


def _ratio(size: Size) -> float:
    """Above 1 where a size is worse than the best on validation."""
    if size.against is None:
        return 1.0
    return size.against.ratio.mean if size.against.ratio is not None else 1 + size.against.difference.mean


def _named(factor: Factor, size: Size) -> str:
    """ "2 N (G = 10)"."""
    absolute = size.setting.leaves.get(factor.path)
    return f"{formats.level(size.setting.level(factor.path))} N (G = {formats.level(absolute)})"


def grid_size_tables(results: Results) -> list[Table]:
    """A row a size and N, each at its own NFE."""
    factor, found = _size(results), grid_sizes(results)
    if factor is None or not found:
        return []
    settings = [size.setting for group in found for size in group.sizes]
    faceted = any(group.facet for group in found)
    columns = [
        Column("steps", "N = NFE", "count"), *([Column("facet", "with")] if faceted else []),
        Column("size", "size"), Column("grid", "G", "count"), Column("n", "n (seeds)", "count"),
        Column("value", results.metric.label, "interval"), Column("ratio", "ratio to the best size", "limits"),
        Column("p", "p (Holm)", "p"), Column("validation", "validation mean", "number"),
    ]  # fmt: skip
    caption = (
        f"{results.metric.label} on the test split at N calls, mean ± half of the 95 % t interval over seeds; lower is "
        f"better. The best size of each N is that of validation (no ratio); the others are paired with it by seed, p "
        f"is corrected by Holm over the sizes of that N. G: intervals of the KAN's grid. {context(results, settings)}"
    )
    table = Table("ldsb_grid_sizes", "KAN grid size × number of nodes", caption, columns)
    for group in found:
        for size in group.sizes:
            row: dict[str, Any] = {
                "steps": group.steps, "facet": group.facet, "grid": size.setting.leaves.get(factor.path),
                "size": f"{formats.level(size.setting.level(factor.path))} N", "n": size.score.interval.n,
                "value": size.score.interval, "p": size.corrected,
                "ratio": size.against.ratio if size.against is not None else None,
                "validation": size.score.validation_mean if size.score.validation else None,
            }  # fmt: skip
            table.add(row, {**results.facets(size.setting), **at(group.steps)}, size.setting.digest)
    return [table]


def _size(results: Results) -> Factor | None:
    """The factor of KAN grid sizes, where it is crossed with the number of nodes that its levels are multiples of."""
    found = (results.design.factor(path) for path in results.design.grid)
    crossed = (factor for factor in found if factor is not None and factor.multiple_of == STEPS)
    return next(crossed, None) if STEPS in results.design.grid else None
